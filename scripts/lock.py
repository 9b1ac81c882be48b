"""Pin every dependency for every supported Python, with hashes and without an index.

    python scripts/lock.py

Writes requirements/run.txt (what `make demo` installs) and requirements/dev.txt (what
`make test` installs). Needs `uv` on the path or in this environment.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def compile_lock(output: str, *extras: str) -> None:
    """Write one universal lock file, with environment markers for each Python."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run(
        [
            uv,
            "pip",
            "compile",
            "pyproject.toml",
            *(flag for extra in extras for flag in ("--extra", extra)),
            "--universal",
            "--python-version",
            "3.11",
            "--fork-strategy",
            "requires-python",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--no-annotate",
            "--no-header",
            "--upgrade",
            "--quiet",
            "--output-file",
            output,
        ],
        cwd=ROOT,
        check=True,
    )


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    compile_lock("requirements/run.txt", "build")
    compile_lock("requirements/dev.txt", "build", "dev")
