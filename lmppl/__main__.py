"""`python -m lmppl`, and the `lmppl` command: Ctrl-C is clean from the first import on."""

import sys


def main() -> None:
    """Entry point of the `lmppl` command."""
    try:
        from lmppl.cli import main as command

        command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
