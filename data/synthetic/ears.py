"""`python -m data.synthetic.ears`: the program of earface.synthetic.draw_ears."""

import sys

from earface.synthetic.draw_ears import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
