"""python -m reprolib STEP: see `python -m reprolib --help`."""

import sys

from reprolib.paper.cli import main

if __name__ == "__main__":
    sys.exit(main())
