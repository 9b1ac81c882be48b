"""Where the buckets of a sweep are trained: here, or as tasks of Ray."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dlworkshop.errors import UserError, one_sentence
from dlworkshop.sweeps.bucket import Bucket, Scores, Work, bucketed
from dlworkshop.sweeps.study import Study, imported

ENGINES = "local", "ray"
LOOK_AGAIN = 1.0  # seconds until it is seen what other processes have done

# Trains buckets, in any order; None is said of one that another process trains.
Engine = Callable[[Iterable[Bucket]], Iterator[tuple[Bucket, Scores | None]]]


def train_all(study: Study, engine: Engine) -> dict[int, Scores]:
    """Ask and train until all trials of a study have their scores.

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
    """One bucket after the other, in this process."""
    yield lambda buckets: ((bucket, work(bucket)) for bucket in buckets)


@contextlib.contextmanager
def on_ray(work: Work, options: Mapping[str, Any] | None) -> Iterator[Engine]:
    """All buckets at once, as tasks of a Ray cluster.

    The cluster that Ray is connected to; else the one that RAY_ADDRESS or a `ray start`
    on this machine names; else one of this machine alone, which ends with the sweep.

    Args:
        work: what is done.
        options: of each task, as Ray's `options` takes them. By default a GPU if the
            cluster has one, else a CPU.

    Raises:
        UserError: if Ray is missing, or what it is to send cannot be sent.
    """
    ray = imported("ray", "engine='ray'")
    ours = not ray.is_initialized()
    if ours:
        with one_sentence("Ray does not start"):
            ray.init(logging_level=logging.WARNING)
    try:
        kind = "num_gpus" if ray.cluster_resources().get("GPU") else "num_cpus"
        with one_sentence("ray_options are not what Ray takes"):
            task = ray.remote(_train).options(
                **({kind: 1} if options is None else options)
            )
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
            f"a bucket was lost as often as Ray tries again ({type(error).__name__}): "
            "see the logs of Ray, and run the same sweep again to go on"
        ) from error
