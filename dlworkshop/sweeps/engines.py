"""Engines that train the buckets of a sweep: in this process, or as Ray tasks."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dlworkshop.errors import UserError, one_sentence
from dlworkshop.sweeps.bucket import Bucket, Scores, Work, bucketed
from dlworkshop.sweeps.study import Study, imported

ENGINES = "local", "ray"
LOOK_AGAIN = 1.0  # seconds between two looks at the progress of other processes

# Trains buckets in any order. The scores are None while another process trains one.
Engine = Callable[[Iterable[Bucket]], Iterator[tuple[Bucket, Scores | None]]]


def train_all(study: Study, engine: Engine) -> dict[int, Scores]:
    """Request trials and train them until the study is complete.

    Returns:
        Number of each bucket -> scores of its trials.
    """
    known: dict[int, Scores] = {}
    while True:
        left = [b for b in bucketed(study.trials()) if b.number not in known]
        busy = False
        for bucket, scores in engine(left):
            if scores is None:
                busy = True
                continue
            known[bucket.number] = scores
            for number, cost in scores.costs():
                study.tell(number, cost)
        if study.ask():
            continue
        if not busy:
            return known
        time.sleep(LOOK_AGAIN)


@contextlib.contextmanager
def local(work: Work) -> Iterator[Engine]:
    """An engine that trains one bucket after the other in this process."""
    yield lambda buckets: ((bucket, work(bucket)) for bucket in buckets)


@contextlib.contextmanager
def on_ray(work: Work, options: Mapping[str, Any] | None) -> Iterator[Engine]:
    """An engine that trains all buckets at once, as tasks of a Ray cluster.

    It uses the cluster that Ray is connected to, else the one given by RAY_ADDRESS or
    `ray start`, else a cluster on this machine that is shut down after the sweep.

    Args:
        work: trains a bucket.
        options: for each task, as Ray's `options` accepts them. If they request no
            resource, each task gets one GPU if the cluster has any, else one CPU.

    Raises:
        UserError: if Ray is not installed, or `work` cannot be sent to the workers.
    """
    ray = imported("ray", "engine='ray'")
    ours = not ray.is_initialized()
    if ours:
        with one_sentence("Ray does not start"):
            ray.init(logging_level=logging.WARNING)
    try:
        kind = "num_gpus" if ray.cluster_resources().get("GPU") else "num_cpus"
        with one_sentence("Ray does not accept these ray_options"):
            task = ray.remote(_train).options(**_requesting(kind, options or {}))
        with one_sentence("the sweep cannot be sent to the workers of Ray"):
            sent = ray.put(work)

        def engine(buckets: Iterable[Bucket]) -> Iterator[tuple[Bucket, Scores | None]]:
            running = {task.remote(sent, bucket): bucket for bucket in buckets}
            try:
                while running:
                    (done,), _ = ray.wait(list(running))
                    yield running.pop(done), _result(ray, done)
            finally:
                for other in running:
                    ray.cancel(other)

        yield engine
    finally:
        if ours:
            ray.shutdown()


def _requesting(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task, which requests one device if they request no resource.

    >>> _requesting("num_gpus", {"max_retries": 5})
    {'num_gpus': 1, 'max_retries': 5}
    >>> _requesting("num_gpus", {"num_cpus": 4})
    {'num_cpus': 4}
    """
    requested = {"num_cpus", "num_gpus", "resources"} & options.keys()
    return dict(options) if requested else {kind: 1, **options}


def _train(work: Work, bucket: Bucket) -> Scores | None:
    return work(bucket)


def _result(ray: Any, done: Any) -> Scores | None:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(
            f"a bucket failed in all of Ray's retries ({type(error).__name__}): read "
            "the logs of Ray, and run the same sweep again to resume it"
        ) from error
