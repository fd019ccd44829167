"""`python -m earface` is the command `earface`."""

import sys

from earface.commands import main

if __name__ == "__main__":
    sys.exit(main())
