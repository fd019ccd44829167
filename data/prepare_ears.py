"""`python -m data.prepare_ears`: the program of earface.data.prepare_ears."""

import sys

from earface.data.prepare_ears import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
