"""`python -m data.prepare_faces`: the program of earface.data.prepare_faces."""

import sys

from earface.data.prepare_faces import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
