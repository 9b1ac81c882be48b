"""An observer that writes event files for TensorBoard."""

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.errors import UserError, check_path
from dlworkshop.files import atomic_write, read_own

OURS = ".dlworkshop"  # suffix of our event files
MOST_BYTES = 1 << 31  # of an event file
HEADER, FOOTER = 12, 4  # bytes around an event: its length and two checksums


def tensorboard(folder: str | Path) -> Callable[[Any], None]:
    """An observer that writes training and validation values for TensorBoard.

    Tags are `loss/train/member_0`, `loss/train/mean`, `accuracy/validation/mean`, ...,
    over steps. Values that are not finite are left out; means are over the other
    members, and are written only if the run has one setting.

    A resumed run removes from the folder the events of steps that it repeats, as it
    does in `metrics.jsonl`, so no step is there twice. Each run therefore needs its own
    folder. Event files of other programs are not touched.

    Args:
        folder: for the event files; created if missing. It may be the run folder.

    Raises:
        UserError: if tensorboardX is not installed, or the folder cannot be created.

    >>> import tempfile
    >>> from dlworkshop import data, fit, models
    >>> folder, digits = tempfile.mkdtemp(), data.load("digits")
    >>> run = fit(models.logistic(), digits, observe=[tensorboard(folder)], quiet=True)
    >>> [path.suffix for path in Path(folder).iterdir()]
    ['.dlworkshop']
    """
    try:
        import tensorboardX  # noqa: F401, PLC0415 (an extra)
    except ImportError as error:
        raise UserError(
            "observers.tensorboard needs tensorboardX, which is not installed: "
            "pip install 'dlworkshop[tensorboard]'"
        ) from error
    check_path("folder", folder)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {folder} for TensorBoard cannot be made ({error.strerror}): "
            "choose another folder"
        ) from error
    return TensorBoard(folder)


class TensorBoard:
    """Writes event files, one per session of a run, flushed after each chunk.

    tensorboardX's own `SummaryWriter` queues events, so a killed process loses some
    that a checkpoint counts as written, and it gives two sessions that begin in the
    same second the same file. Its `EventsWriter` does neither.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: Any = None
        self._last = 0

    def __call__(self, snapshot: Any) -> None:
        """Write the values of a `Snapshot`."""
        if self._writer is None or snapshot.step <= self._last:  # another session
            self._begin(snapshot.step)
        self._last = snapshot.step
        alike = not any(np.ptp(values) for values in snapshot.hparams.values())
        splits = {"train": snapshot.train, "validation": snapshot.validation or {}}
        values = {
            f"{name}/{split}/{who}": value
            for split, found in splits.items()
            for name, of_members in found.items()
            for who, value in _named(of_members)
            if who != "mean" or alike
        }
        self._write(snapshot.step, values)
        if snapshot.step == snapshot.num_steps:
            self._writer.close()
            self._writer = None

    def _begin(self, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415
        from tensorboardX.proto import event_pb2  # noqa: PLC0415

        if self._writer is not None:
            self._writer.close()
        for path in sorted(self._folder.glob(f"events.out.tfevents.*{OURS}")):
            cut(path, step)
        self._writer = EventsWriter(str(self._folder / "events"), f".{step}{OURS}")
        # a running TensorBoard has read the events that were just cut: START drops them
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        event = event_pb2.Event(wall_time=time.time(), step=step, session_log=start)
        self._writer.write_event(event)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # noqa: PLC0415

        summary = summary_pb2.Summary(
            value=[
                summary_pb2.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ]
        )
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self._writer.write_event(event)
        self._writer.flush()


def _named(values: np.ndarray) -> Iterator[tuple[str, float]]:
    """(member_3, value) of each finite value [P], and their mean.

    >>> list(_named(np.array([0.5, np.nan, 1.5])))
    [('member_0', 0.5), ('member_2', 1.5), ('mean', 1.0)]
    """
    values = np.asarray(values, np.float64)
    finite = np.flatnonzero(np.isfinite(values))
    yield from ((f"member_{member}", float(values[member])) for member in finite)
    if finite.size:
        yield "mean", float(values[finite].mean())


def events(content: bytes) -> Iterator[tuple[int, Any]]:
    """(end position, event) of the complete events in a file.

    Source of the framing: TensorFlow's `lib/io/record_writer.h`: length (8 bytes) and
    its checksum (4), the event, its checksum (4).
    """
    from tensorboardX.proto import event_pb2  # noqa: PLC0415

    position = 0
    while position + HEADER <= len(content):
        (size,) = struct.unpack_from("<Q", content, position)
        first = position + HEADER
        position = first + size + FOOTER
        if position > len(content):  # cut off when the process was killed
            return
        yield position, event_pb2.Event.FromString(content[first : first + size])


def cut(path: Path, step: int) -> None:
    """Remove the events of `step` and later from an event file of ours.

    Events are in the order of steps. A file without events is removed.

    Raises:
        UserError: if it is damaged or a link, or not a regular file.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 (of tensorboardX)

    end, left = 0, 0
    try:
        content = read_own(path, MOST_BYTES)
        for position, event in events(content):
            if event.step >= step:
                break
            end, left = position, left + len(event.summary.value)
    except (OSError, DecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be read ({why}): remove it, or choose another folder for "
            "TensorBoard"
        ) from error
    if not left:
        path.unlink()
    elif end < len(content):
        atomic_write(path, content[:end])
