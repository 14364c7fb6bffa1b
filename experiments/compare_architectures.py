"""Compares architectures from random weights with the same data, size, settings and CPU time.

    python experiments/compare_architectures.py ROOT OUT [--minutes 10]
        (ROOT: the photographs; OUT: a folder; an existing one is resumed)

The number of steps of a network follows from the CPU time of its step (both cores together), which is
measured alternately for all networks; keep the machine idle during these few minutes. The networks of
`AGAIN` are trained once more, for DeepLab's number of steps. All images are squashed to 128 px, because the
plain ViT needs it.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nailseg import train
from nailseg.models import build_network

SPLIT = Path(__file__).parent / "nailseg_b0_split.csv"
SIZE, BATCH, TRAINED = 128, 16, 2156
NETWORKS = {  # --model.name, --model.weights, --model.lr
    "SegFormer-B0": ("segformer", "b0-random", 6e-4),
    "mix_transformer-B0": ("mix_transformer", "b0-random", 6e-4),
    "ViT small": ("vit", "vit-small-random", 6e-4),
    "ViT 86 M": ("vit", "vit-pet-random", 1e-4),
    "UperNet-ConvNeXt-T": ("auto", "upernet-convnext-tiny-random", 3e-4),
    "DeepLabV3-MobileNetV2": ("auto", "mobilenetv2-deeplabv3-random", 6e-4),
}
AGAIN = ("SegFormer-B0", "ViT small")  # trained once more, for DeepLab's number of steps


def build(name: str) -> torch.nn.Module:
    """Builds one with random weights."""
    torch.manual_seed(0)
    architecture, weights, _ = NETWORKS[name]
    return build_network(weights, ["background", "nail"], name=architecture)


def seconds_per_step(rounds: int = 10) -> dict[str, float]:
    """CPU seconds of a training step of each network, in bfloat16 as `nailseg.train`."""
    networks = {name: build(name).train() for name in NETWORKS}
    optimizers = {name: torch.optim.AdamW(each.parameters(), lr=1e-4) for name, each in networks.items()}
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    target = torch.randint(0, 2, (BATCH, SIZE, SIZE))
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, each in networks.items():
            for _ in range(2):  # the second is timed: in the first, the caches hold another network
                start = time.process_time()
                with torch.autocast("cpu", torch.bfloat16):
                    logits = each(images)
                F.cross_entropy(logits.float(), target).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
                taken = time.process_time() - start
            times[name].append(taken)
    return {name: statistics.median(taken[2:]) for name, taken in times.items()}  # two rounds warm up


def measure_costs() -> dict[str, dict[str, float]]:
    """Parameters, multiply-adds of an image and images per second (batch of one, float32) of each network."""
    networks = {name: build(name).eval() for name in NETWORKS}
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    times: dict[str, list[float]] = {name: [] for name in networks}
    result = {}
    with torch.inference_mode():
        for name, tested in networks.items():
            with FlopCounterMode(display=False) as counter:
                tested(image)
            result[name] = {
                "parameters": sum(p.numel() for p in tested.parameters()),
                "multiply_adds": counter.get_total_flops() / 2,
            }
        for _ in range(25):  # alternating, so that changes of the machine's speed affect all
            for name, tested in networks.items():
                start = time.perf_counter()
                tested(image)
                times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        result[name]["images_per_second"] = 1 / statistics.median(taken[3:])
    return result


def train_and_test(name: str, steps: int, root: Path, runs: Path, run: str) -> dict[str, float]:
    """Trains one for about `steps` steps and tests it; returns its metrics.json and the actual steps."""
    epochs = math.ceil(steps / (TRAINED // BATCH))
    report = runs / run / "test" / "metrics.json"
    if not report.exists():
        architecture, weights, lr = NETWORKS[name]
        options = {
            "config": "scratch_b0.yaml",
            "model.name": architecture,
            "model.weights": weights,
            "model.lr": lr,
            "data.csv": SPLIT,
            "data.root": root,
            # 3/1389.jpg in train, 4/7_1.jpg in val; the split is that of the shipped weights
            "data.allow": "[near-duplicate-split]",
            "data.size": SIZE,
            "data.eval_size": SIZE,
            "data.resize": "squash",
            "data.batch_size": BATCH,
            "trainer.max_epochs": epochs,
            "trainer.limit_train_batches": round(steps / epochs),
            "trainer.check_val_every_n_epoch": epochs,
            "trainer.logger": "false",
            "runs": runs,
            "name": run,
        }
        assert train.main([f"--{option}={value}" for option, value in options.items()]) == 0
    return json.loads(report.read_text()) | {"steps": epochs * round(steps / epochs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10, help="CPU minutes of training for each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    plan = options.out / "seconds_per_step.json"
    if not plan.exists():
        plan.write_text(json.dumps(seconds_per_step()))
    runs = options.out / "runs"
    results = {}
    for name, seconds in json.loads(plan.read_text()).items():
        steps = round(60 * options.minutes / seconds)
        results[name] = train_and_test(name, steps, options.root, runs, name.lower().replace(" ", "-"))
    costs = measure_costs()
    for name, cost in costs.items():
        results[name] |= cost
    steps = int(results["DeepLabV3-MobileNetV2"]["steps"])
    again = {
        f"{name}, again": train_and_test(
            name, steps, options.root, runs, f"{name.lower()}-again".replace(" ", "-")
        )
        | costs[name]
        for name in AGAIN
    }
    print("| network | parameters | multiply-adds | images/s | steps | Dice | boundary IoU | AP50 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in (results | again).items():
        print(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {row['multiply_adds'] / 1e9:.2f} G | "
            f"{row['images_per_second']:.0f} | {row['steps']} | {row['dice_nail']:.3f} | "
            f"{row['boundary_iou_nail']:.3f} | {row['ap50_nail']:.3f} |"
        )
    draw(results, options.out / "architectures.png")


def draw(results: dict[str, dict[str, float]], path: Path) -> None:
    """Plots Dice and boundary IoU against speed; the area of a point shows the number of parameters."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True)
    for axis, key, label in zip(
        axes, ("dice_nail", "boundary_iou_nail"), ("Dice of nail", "boundary IoU of nail"), strict=True
    ):
        for number, (name, row) in enumerate(results.items()):
            position = row["images_per_second"], row[key]
            axis.scatter(*position, s=30 + 4 * row["parameters"] / 1e6, color=f"C{number}", alpha=0.8)
            below = name in ("SegFormer-B0", "ViT 86 M")  # avoids overlapping labels
            axis.annotate(
                name,
                position,
                xytext=(0, -24 if below else 12),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axis.set(xscale="log", xlabel="images per second (128 px, torch, float32)", ylabel=label)
        axis.margins(0.2)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
