"""`python -m lmppl` is the `lmppl` command."""

from lmppl.cli import main

if __name__ == "__main__":
    main()
