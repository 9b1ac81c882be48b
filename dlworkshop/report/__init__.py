"""Run folder -> one HTML page with figures that opens offline.

`write(workdir)` reads what a run left in its folder (`read`), draws it (`figures`),
says it in words (`words`) and sets it on one page (`page`, of `elements`).
"""

from pathlib import Path

from dlworkshop.files import atomic_write

__all__ = ["write"]


def write(workdir: Path) -> Path:
    """Write `workdir/report.html` atomically, and return its path.

    Args:
        workdir: the folder of a finished run: config.json and summary.json; with
            metrics.jsonl and predictions.npz the page has curves and mistakes too.

    Returns:
        The path of the page: one file without links to anything outside itself.

    Raises:
        UserError: if the folder is not that of a finished run.
    """
    from dlworkshop.report import page, read  # noqa: PLC0415 (they bring matplotlib)

    workdir = Path(workdir)
    text = page.render(read.read_run(workdir))
    target = workdir / "report.html"
    atomic_write(target, text)  # a reader sees the old page or the new one, no half
    return target
