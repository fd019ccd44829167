"""`python -m data.convert_annotations`: the program of earface.data.convert_annotations."""

import sys

from earface.data.convert_annotations import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
