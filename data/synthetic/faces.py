"""`python -m data.synthetic.faces`: the program of earface.synthetic.draw_faces."""

import sys

from earface.synthetic.draw_faces import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
