"""Measures the time of `nailseg index` and `nailseg check`, and how it grows with the number of pairs.

    python benchmarks/checking.py [--nails DIR] [--drawn 700 2700 20000] [--json FILE]

Each command runs in its own process, as a user would start it: the time includes the start of Python, the
peak memory is the kernel's. The pairs come from DIR (Images/, Masks/), once an even selection and once all of
them, and from the drawn sample, whose drawing is not timed. Requirement: 60 s for both commands on the 2,699
pairs of nails with 2 cores, below 1 GB. Reading is linear in the number of pairs; the comparison of hashes is
quadratic, and its share is small below 10,000 pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nailseg.data.synthetic import write_sample


def measure(*arguments: str) -> tuple[float, float, float]:
    """Runs one `nailseg` process: wall seconds, CPU seconds, peak MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "nailseg", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1: `check` found errors, which takes as long
        sys.exit(errors.decode())
    busy = usage.ru_utime + usage.ru_stime  # depends little on other processes of the machine
    return time.perf_counter() - start, busy, usage.ru_maxrss / 1024


def copy_pairs(source: Path, folder: Path, count: int) -> Path:
    """Copies `count` evenly chosen pairs of one folder to another; returns the new folder."""
    images = sorted(path for path in (source / "Images").rglob("*") if path.is_file())
    for number in range(count):
        path = images[number * len(images) // count]
        name = path.relative_to(source / "Images")
        for kind, relative in (("Images", name), ("Masks", name.with_suffix(".png"))):
            target = folder / kind / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / kind / relative).read_bytes())
    return folder


def measure_folder(name: str, folder: Path, count: int, csv: Path) -> dict:
    """Measures both commands on one folder, and prints a line."""
    index, index_busy, index_memory = measure("index", str(folder), "--out", str(csv))
    check, check_busy, check_memory = measure("check", str(csv), "--root", str(folder))
    total, busy = index + check, index_busy + check_busy
    memory = max(index_memory, check_memory)
    print(
        f"{name:10}{count:>8}{index:>9.1f} s{check:>9.1f} s{total:>9.1f} s{1e3 * busy / count:>9.1f} ms"
        f"{memory:>8.0f} MB",
        flush=True,
    )
    return {
        "name": name,
        "pairs": count,
        "index_s": index,
        "check_s": check,
        "cpu_s": busy,
        "peak_mb": memory,
    }


def main() -> None:
    """Prints a line per data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nails", type=Path, help="folder with Images/ and Masks/")
    parser.add_argument("--drawn", type=int, nargs="*", default=[700, 2700], help="numbers of drawn pairs")
    parser.add_argument("--size", type=int, default=128, help="pixels a side of the drawn images")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        print(f"{'':10}{'pairs':>8}{'index':>11}{'check':>11}{'both':>11}{'CPU a pair':>12}{'memory':>11}")
        if options.nails:
            total = sum(path.is_file() for path in (options.nails / "Images").rglob("*"))
            for count in (min(700, total), total):
                folder = copy_pairs(options.nails, scratch / f"nails {count}", count)
                rows.append(measure_folder("nails", folder, count, scratch / f"nails {count}.csv"))
        drawn = scratch / "drawn"
        if options.drawn:
            write_sample(drawn, count=max(options.drawn), size=options.size)
        for count in sorted(options.drawn):
            folder = copy_pairs(drawn, scratch / f"drawn {count}", count)
            rows.append(measure_folder("drawn", folder, count, scratch / f"drawn {count}.csv"))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
