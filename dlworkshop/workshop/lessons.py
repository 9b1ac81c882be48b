"""The files of the lessons, and copies of them to run and change."""

from collections.abc import Mapping
from pathlib import Path

from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write

# In a wheel the experiments are inside the package, in a checkout beside it.
PACKAGE = Path(__file__).parent.parent
HOME = PACKAGE if (PACKAGE / "experiments").is_dir() else PACKAGE.parent
FOLDER = HOME / "experiments"


def scripts() -> list[Path]:
    """The scripts of the lessons (experiments with slides), in alphabetical order."""
    found = sorted(FOLDER.glob("*.py"))
    return [path for path in found if (FOLDER / "slides" / path.name).exists()]


def copy(folder: Path) -> list[Path]:
    """Copy all experiments, with their slides and pages, into a folder.

    Args:
        folder: created if missing; files with equal content are not changed.

    Returns:
        The paths of the scripts, in alphabetical order.

    Raises:
        UserError: if a file exists with other content; then nothing is written.

    >>> import tempfile
    >>> copied = copy(Path(tempfile.mkdtemp()))
    >>> "xor.py" in [script.name for script in copied]
    True
    """
    kinds = "*.py", "slides/*.py", "pages/*.md"
    found = [path for kind in kinds for path in sorted(FOLDER.glob(kind))]
    files = {str(path.relative_to(FOLDER)): path.read_text("utf-8") for path in found}
    write(folder, files)
    return [folder / path.name for path in found if path.parent == FOLDER]


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write text files, name -> content, unless one exists with other content.

    Raises:
        UserError: if `files` is empty, or a file would be overwritten; then nothing is
            written.
    """
    if not files:
        raise UserError(f"{FOLDER} contains no lessons: install dlworkshop again")
    paths = {folder / name: text for name, text in files.items()}
    there = [path for path in paths if path.exists()]
    for path in there:
        if path.read_text("utf-8", errors="replace") != paths[path]:
            raise UserError(
                f"{path} exists already, with other content: choose another folder, or "
                "move the file away"
            )
    for path in paths.keys() - set(there):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, paths[path])
