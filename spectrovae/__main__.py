"""`python -m spectrovae`, the same as the command `spectrovae`."""

import sys

from spectrovae.commands import main

if __name__ == "__main__":
    sys.exit(main())
