"""Prepare a data set for this library and for plain tfds, without TensorFlow.

    python scripts/prepare_data.py mnist --from DIR [--data-dir OUT]

DIR holds the raw files, as train-images-idx3-ubyte.gz or cifar-10-binary.tar.gz;
without it the official ones are downloaded. MNIST takes about ten seconds.
"""

import argparse
import logging
import sys
from pathlib import Path

from dlworkshop import errors
from dlworkshop.data import NAMES, load, places, prepare


def main() -> int:
    """Prepare, and say where it is; 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help=", ".join(NAMES))
    parser.add_argument("--from", dest="source", type=Path, help="folder of raw files")
    parser.add_argument("--data-dir", type=Path, help="where to prepare it")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("dlworkshop").setLevel(logging.INFO)
    try:
        if args.name not in NAMES:
            raise errors.unknown("data set", args.name, NAMES)
        root = (args.data_dir or places.cache_dir()).absolute()
        if places.newest(root, args.name) and args.source:
            print(f"was there already, so {args.source} was not read; delete to redo")
        elif not places.newest(root, args.name):
            prepare.prepare(args.name, root, args.source)
        dataset = load(args.name, root)
    except (errors.UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = [len(split.label) for split in dataset[:3]]
    print(f"{args.name}: {counts[0]} train, {counts[1]} validation, {counts[2]} test")
    print(
        f"{args.name} lies in {places.newest(root, args.name)}; plain tfds reads it: "
        f"tfds.data_source({args.name!r}, data_dir={str(root)!r})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
