"""`python -m nailseg`, the same as the console script `nailseg`."""

import sys

from nailseg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
