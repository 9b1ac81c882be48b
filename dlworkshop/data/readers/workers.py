"""Decoding of files on all cores, with one process per core.

It uses processes rather than threads, because small images take more time in Python
than in the decoder. They are started as programs rather than forked, because the
threads of JAX do not survive a fork.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from dlworkshop.data.progress import Count
from dlworkshop.data.readers import images
from dlworkshop.errors import UserError

MOST, LEAST = 2048, 32  # image files of one job, which writes one file of records


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode(
    files: Sequence[str], preprocessing: Mapping[str, Any], folder: Path
) -> tuple[list[list[Any]], list[tuple[str, int]]]:
    """Decode all `files` into `folder`, as `images.decode` does.

    Returns:
        The answer of `images.work` for each file; and the files of records, each with
        its number of records, in the order of `files` without the unreadable ones.
    """
    each = min(MOST, max(LEAST, -(-len(files) // (4 * cores()))))
    jobs: list[dict[str, Any]] = [
        {
            "files": files[first : first + each],
            "preprocessing": dict(preprocessing),
            "records": str(folder / f"records-{first // each:05d}.array_record"),
        }
        for first in range(0, len(files), each)
    ]
    with _workers(min(cores(), len(jobs))) as ask, Count(len(files), "files") as bar:
        asked = [ask(job) for job in jobs]
        for done in as_completed(asked):
            bar.advance(len(done.result()))
    answers = [done.result() for done in asked]
    records = [
        (Path(job["records"]).name, sum(len(row) > 2 for row in answer))
        for job, answer in zip(jobs, answers, strict=True)
    ]
    for name, count in records:
        if not count:
            (folder / name).unlink()
    return list(itertools.chain(*answers)), [
        (name, count) for name, count in records if count
    ]


@contextlib.contextmanager
def _workers(count: int) -> Iterator[Callable[[Mapping[str, Any]], Future]]:
    """Worker processes, each served by a thread, as a function that takes a job."""
    own, started = threading.local(), list[subprocess.Popen]()

    def answer(job: Mapping[str, Any]) -> list[list[Any]]:
        if not hasattr(own, "process"):
            own.process = subprocess.Popen(
                # -P: no imports from beside it
                [sys.executable, "-P", images.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C interrupts this process only
            )
            started.append(own.process)
        with contextlib.suppress(BrokenPipeError):  # the missing answer is reported
            own.process.stdin.write(json.dumps(job) + "\n")
            own.process.stdin.flush()
        line = own.process.stdout.readline()
        if not line:
            raise UserError(
                f"a process that decodes images ended with {own.process.wait()} "
                f"between {job['files'][0]} and {job['files'][-1]}: free some memory, "
                "or find the damaged file and remove it"
            )
        result = json.loads(line)
        if isinstance(result, str):
            raise UserError(
                f"{job['records']} cannot be written ({result}): give a writable "
                "folder with enough room by data_dir (--data-dir) or DLWORKSHOP_DATA"
            )
        return result

    threads = ThreadPoolExecutor(count)
    try:
        yield lambda job: threads.submit(answer, job)
    except BaseException:  # the answers are no longer needed
        threads.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.kill()
        raise
    finally:
        threads.shutdown()
        for process in started:
            process.communicate()
