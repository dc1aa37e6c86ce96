"""python -m reprolib STEP: see `python -m reprolib --help`."""

import sys

if __name__ == "__main__":
    try:
        from reprolib.paper import cli

        code = cli.main()
    except KeyboardInterrupt:  # while something is imported
        code = 130
    sys.exit(code)
