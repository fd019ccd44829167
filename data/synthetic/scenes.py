"""`python -m data.synthetic.scenes`: the program of earface.synthetic.draw_scenes."""

import sys

from earface.synthetic.draw_scenes import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
