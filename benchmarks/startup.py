"""Start-up of the package and the command line, against an empty Python process, in one run.

    python benchmarks/startup.py [--repeats 15]

Prints medians of the wall time in milliseconds and their ratio to `python -c pass`; only the ratio carries
over to another machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import nailseg": ("-c", "import nailseg"),
    "nailseg --help": ("-m", "nailseg", "--help"),
    "nailseg index --help": ("-m", "nailseg", "index", "--help"),
    "import torch": ("-c", "import torch"),
}


def main() -> None:
    """Starts all commands alternately, so that changes of the machine's speed affect all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if repeat:  # the first start reads the files from the disk
                times[name].append(1e3 * (time.perf_counter() - begin))
    baseline = statistics.median(times["python -c pass"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:22}{median:8.0f} ms{median / baseline:8.1f}x")


if __name__ == "__main__":
    main()
