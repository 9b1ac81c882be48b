"""The run folders of a gallery -> slides, a page for each chapter of the lecture."""

from pathlib import Path

from dlworkshop.errors import UserError
from dlworkshop.files import atomic_write
from dlworkshop.report import read, slides
from dlworkshop.workshop.gallery import LECTURE

FILES = "summary.json", "lesson.md"  # of a lesson that has run


def write(gallery: Path, folder: Path) -> list[Path]:
    """Write `folder/CHAPTER.html` for each chapter with a lesson that has run.

    Args:
        gallery: the folder of a gallery, with the run folders of the lessons.
        folder: created if missing; files in it are overwritten.

    Returns:
        The paths of the pages, in the order of the lecture.

    Raises:
        UserError: if the gallery has no lesson, or one that is damaged.
    """
    chapters = {
        title: [name for name in names if _has_run(gallery / name)]
        for title, names in LECTURE.items()
    }
    if not any(chapters.values()):
        raise UserError(
            f"'{gallery}' contains no lesson that has run: give the folder of a "
            "gallery, which dlworkshop gallery DIR writes"
        )
    pages = {
        title: slides.render(title, [read.read_run(gallery / name) for name in names])
        for title, names in chapters.items()
        if names
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for title, names in chapters.items():
        if title not in pages:
            print(f"{title}: left out, because none of its lessons has run")
            continue
        path = folder / f"{title.lower().replace(' ', '_')}.html"
        atomic_write(path, pages[title])
        print(f"{path}: {', '.join(names)}")
        written.append(path)
    return written


def _has_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)
