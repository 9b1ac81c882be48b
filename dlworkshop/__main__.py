"""`python -m dlworkshop` is the command `dlworkshop`."""

import sys

from dlworkshop.cli import main

if __name__ == "__main__":
    sys.exit(main())
