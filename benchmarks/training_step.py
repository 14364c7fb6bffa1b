"""Times a training step with our decode head and with transformers', with the same weights in one run.

    python benchmarks/training_step.py [--models b0 b2] [--size 512] [--batch 1] [--repeats 8] [--json FILE]

A step is forward, cross-entropy on logits upsampled to the image, backward and AdamW; eager torch, fp32,
transformers with sdpa. Both networks alternate, so that changes of the machine's speed affect both, and their
medians are compared. Memory is the peak resident size of two steps in a separate process, minus its size
before the network was built. Only ratios carry over to another machine. Required: B0 at least 1.3x, B2 at
least 1.8x, with a lower memory peak.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import SegformerForSemanticSegmentation

from nailseg.models.segformer import SegFormer

FLOORS = {"b0": 1.3, "b2": 1.8}
KINDS = ("transformers", "nailseg")


def networks(name: str, kinds: tuple[str, ...] = KINDS) -> dict[str, torch.nn.Module]:
    """Builds transformers' network and ours with the same weights."""
    torch.manual_seed(0)
    ours = SegFormer(f"{name}-random").hf
    if kinds == ("nailseg",):
        return {"nailseg": ours}
    stock = SegformerForSemanticSegmentation(copy.deepcopy(ours.config)).train()
    stock.load_state_dict(ours.state_dict())
    assert stock.config._attn_implementation == "sdpa"
    return {kind: {"transformers": stock, "nailseg": ours}[kind] for kind in kinds}


def stepper(network: torch.nn.Module, size: int, batch: int) -> Callable[[], None]:
    """Returns a function that runs one step."""
    pixels, labels = torch.randn(batch, 3, size, size), torch.randint(0, 2, (batch, size, size))
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-5)

    def step() -> None:
        small = network(pixel_values=pixels).logits
        logits = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def resident() -> float:
    """Returns the process's peak memory so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts from the parent's peak
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_memory(kind: str, name: str, size: int, batch: int) -> float:
    """Measures the MiB that two steps add to the interpreter, in this process."""
    before = resident()
    step = stepper(networks(name, (kind,))[kind], size, batch)
    for _ in range(2):  # the second needs the optimizer's state and the activations
        step()
    return resident() - before


def memory(kind: str, name: str, size: int, batch: int) -> float:
    """Runs `measure_memory` in a separate process, because a peak never decreases."""
    command = [sys.executable, __file__, "--memory_of", kind, name, str(size), str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def compare(name: str, size: int, batch: int, repeats: int) -> dict[str, float | str]:
    """Times both networks alternately and measures each one's memory.

    Returns:
        The model, milliseconds and MiB of each, and the ratio of the times.
    """
    steps = {kind: stepper(network, size, batch) for kind, network in networks(name).items()}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for repeat in range(repeats + 1):
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 1:  # the first is a warm-up
                times[kind].append(1e3 * (time.perf_counter() - start))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    row: dict[str, float | str] = {"model": name}
    for kind in KINDS:
        row |= {f"{kind}_ms": medians[kind], f"{kind}_mib": memory(kind, name, size, batch)}
    return row | {"ratio": medians["transformers"] / medians["nailseg"]}


def main() -> None:
    """Prints a row per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(FLOORS))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--memory_of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        kind, name, size, batch = options.memory_of
        print(measure_memory(kind, name, int(size), int(batch)))
        return

    print(
        f"training step, {options.size}x{options.size}, batch {options.batch}, fp32, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'model':6}{'transformers':>24}{'nailseg':>24}{'ratio':>8}{'required':>9}")
    rows = []
    for name in options.models:
        row = compare(name, options.size, options.batch, options.repeats)
        rows.append(row)
        cells = [f"{row[f'{kind}_ms']:.0f} ms {row[f'{kind}_mib']:6.0f} MiB" for kind in KINDS]
        print(
            f"{name:6}{cells[0]:>24}{cells[1]:>24}{row['ratio']:7.2f}x{FLOORS.get(name, '-'):>9}", flush=True
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
