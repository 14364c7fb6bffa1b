"""Time of one metric update: our integer counts and torchmetrics' DiceScore on the same masks in one run.

    python benchmarks/metric_update.py [--batch 8] [--size 512] [--repeats 15] [--threads 1]

Prints medians in milliseconds and their ratio; only the ratio holds on other machines.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torchmetrics.segmentation import DiceScore

from nailseg.metrics.confusion import ConfusionMatrix, class_index


def main() -> None:
    """Times the two alternately, so that a change of the machine's speed affects both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shape = (options.batch, options.size, options.size)
    logits = torch.randn(options.batch, 2, *shape[1:])
    prediction, target = class_index(logits), torch.randint(0, 2, shape)

    counts = ConfusionMatrix(2)
    score = DiceScore(num_classes=2, input_format="index")
    contenders = {
        "nailseg confusion matrix": lambda: counts.update(prediction, target),
        "torchmetrics DiceScore": lambda: score.update(prediction.long(), target),
        "nailseg class_index": lambda: class_index(logits),
        "torch argmax": lambda: logits.argmax(1),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(options.repeats + 2):
        for name, update in contenders.items():
            start = time.perf_counter()
            update()
            if repeat >= 2:  # the first two warm up
                times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:26} {median:8.2f} ms")
    ours, theirs = medians["nailseg confusion matrix"], medians["torchmetrics DiceScore"]
    print(f"update: {theirs / ours:.1f}x (target: at least 10x)")
    print(f"argmax: {medians['torch argmax'] / medians['nailseg class_index']:.1f}x")


if __name__ == "__main__":
    main()
