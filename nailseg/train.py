"""`python -m nailseg.train --config b4.yaml`, the same as `nailseg train`: fit, then test the best."""

import sys

from nailseg.cli.main import main as nailseg


def main(args: list[str] | None = None) -> int:
    """Runs `nailseg train`; None takes the options of the process. Returns the exit code."""
    return nailseg(["train", *(sys.argv[1:] if args is None else args)])


if __name__ == "__main__":
    sys.exit(main())
