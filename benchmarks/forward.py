"""Times a forward pass of our networks and of transformers' with the same weights in one run.

    python benchmarks/forward.py [--models b0 b2 mix_transformer/b0] [--size 512] [--batch 1] [--repeats 15]
        [--json FILE]

Eager torch, fp32, transformers with sdpa. Both networks alternate, so that changes of the machine's speed
affect both, and their medians are compared. Only the ratio carries over to another machine. Required: B0 at
least 2.0x, B2 at least 2.5x, mix_transformer/b0 at least 1.0x.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import SegformerForSemanticSegmentation

from nailseg.models.loading import quiet_transformers
from nailseg.models.registry import build_network

FLOORS = {"b0": 2.0, "b2": 2.5, "mix_transformer/b0": 1.0}


def compare(name: str, size: int, batch: int, repeats: int) -> dict[str, float | str]:
    """Times both networks alternately and compares their logits.

    Returns:
        The model, milliseconds of each, their ratio, and the largest difference of the logits, relative to
        the largest absolute logit.
    """
    torch.manual_seed(0)
    architecture, _, weights = name.rpartition("/")
    ours = build_network(weights, name=architecture or "segformer").eval()
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        ours.save(Path(folder))
        stock = SegformerForSemanticSegmentation.from_pretrained(folder, attn_implementation="sdpa").eval()
    assert stock.config._attn_implementation == "sdpa"
    pixels = torch.randn(batch, 3, size, size)
    times: dict[str, list[float]] = {"transformers": [], "nailseg": []}
    logits = {}
    with torch.inference_mode():
        for repeat in range(repeats + 2):
            for label, network in (("transformers", lambda x: stock(x).logits), ("nailseg", ours.logits)):
                start = time.perf_counter()
                logits[label] = network(pixels)
                if repeat >= 2:  # the first two are a warm-up
                    times[label].append(1e3 * (time.perf_counter() - start))
    theirs, mine = (statistics.median(times[label]) for label in ("transformers", "nailseg"))
    expected = logits["transformers"]
    error = (logits["nailseg"] - expected).abs().max() / expected.abs().max()
    return {
        "model": name,
        "transformers_ms": theirs,
        "nailseg_ms": mine,
        "ratio": theirs / mine,
        "difference": error.item(),
    }


def main() -> None:
    """Prints a row per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(FLOORS))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()

    size, batch = options.size, options.batch
    print(f"forward, {size}x{size}, batch {batch}, fp32, {torch.get_num_threads()} threads")
    print(f"{'model':20}{'transformers':>14}{'nailseg':>12}{'ratio':>8}{'required':>9}{'difference':>12}")
    rows = []
    for name in options.models:
        row = compare(name, size, batch, options.repeats)
        rows.append(row)
        print(
            f"{name:20}{row['transformers_ms']:11.1f} ms{row['nailseg_ms']:9.1f} ms{row['ratio']:7.2f}x"
            f"{FLOORS.get(name, '-'):>9}{row['difference']:12.1e}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
