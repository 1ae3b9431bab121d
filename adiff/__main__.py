"""`python -m adiff` is the command `adiff`."""

from .cli import main

if __name__ == "__main__":
    main()
