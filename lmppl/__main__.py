"""`python -m lmppl`, and the `lmppl` command: Ctrl-C is clean from the first import to the last
moment.
"""

import sys

from lmppl.interrupts import INTERRUPTED, end_at_once, raise_again


def main() -> None:
    """Entry point of the `lmppl` command."""
    try:
        raise_again()
        from lmppl.cli import main as command

        command()
    except KeyboardInterrupt:
        end_at_once()
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        end_at_once()  # what Python does at its end would show a traceback


if __name__ == "__main__":
    main()
