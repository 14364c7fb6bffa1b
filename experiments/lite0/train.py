"""Trains nailseg-lite0 on one GPU in four minutes: all images, augmentation and negatives stay on the card.

    python experiments/lite0/train.py /path/to/nails --out runs/lite0 --seconds 235

NAILS has Images/ and Masks/ of 432 x 432 pixels, in the split of nailseg_b0_split.csv. A tenth of every batch
are negatives, images without any nail: drawn flats, ramps, textures, noise, skin and round or boxy things;
windows of the training photographs far from nails, some with exchanged or inverted channels; and, from a
quarter of the run on, those of both kinds on which the averaged network found most nail (hard negatives).
The loss is cross-entropy plus soft Dice; AdamW with warm-up and polynomial decay; exponential moving average;
bfloat16; crops of 320 to 576 px at 0.5 to 2 times the photographs' scale. The averaged weights are written
as a model folder.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nailseg.checkpoints import model_folder
from nailseg.models.efficientnet import EfficientNet

SPLIT = Path(__file__).parents[1] / "nailseg_b0_split.csv"
SIDE = 432
"""Pixels a side of the photographs."""

SKIN = torch.tensor(
    [
        *((247, 219, 200), (238, 196, 168), (226, 172, 138), (204, 146, 110)),
        *((172, 116, 84), (134, 88, 62), (98, 64, 47), (68, 45, 36)),
    ]
).float()
YIQ = torch.tensor([(0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


class Photographs:
    """Images uint8 (N, 3, H, W), masks uint8 (N, H, W) of 0 and 1, and which of them are trained on."""

    def __init__(self, root: Path, device: str) -> None:
        with SPLIT.open(newline="") as file:
            rows = list(csv.DictReader(file))

        def read(path: str, mode: str) -> np.ndarray:
            return np.asarray(Image.open(root / path).convert(mode))

        with ThreadPoolExecutor() as pool:
            images = np.stack(list(pool.map(lambda row: read(row["image"], "RGB"), rows)))
            masks = np.stack(list(pool.map(lambda row: read(row["mask"], "L") > 127, rows)))
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        self.masks = torch.from_numpy(masks).byte().to(device)
        self.half = torch.cat(
            [F.avg_pool2d(part.float(), 2).round().byte() for part in self.images.split(256)]
        )
        self.part = {
            name: torch.tensor([n for n, row in enumerate(rows) if row["split"] == name], device=device)
            for name in ("train", "val", "test")
        }
        # sums over rectangles of the masks grown by 24 pixels, to find windows far from nails
        grown = torch.cat(
            [F.max_pool2d(part[:, None].float(), 49, 1, 24)[:, 0] for part in self.masks.split(64)]
        )
        self.sums = F.pad(grown.cumsum(1).cumsum(2), (1, 0, 1, 0))

    def crops(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Random crops: images float (N, 3, S, S), 0..255, and masks int64 (N, S, S), 255 outside."""
        count, device = len(rows), rows.device
        zoom = torch.exp(_uniform(count, device, math.log(0.5), math.log(2)))
        turns = torch.randint(0, 4, (count,), device=device) * (torch.rand(count, device=device) < 0.15)
        angle = _uniform(count, device, -math.pi / 6, math.pi / 6) + turns * math.pi / 2
        stretch = torch.exp(_uniform(count, device, -0.15, 0.15))
        flip = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        extent = size / SIDE / zoom
        wide, tall, cos, sin = extent * stretch * flip, extent / stretch, angle.cos(), angle.sin()
        shift = _uniform((2, count), device, -1, 1) * (1 - extent).abs() * 0.9
        theta = torch.stack([wide * cos, -tall * sin, shift[0], wide * sin, tall * cos, shift[1]], 1)
        grid = F.affine_grid(theta.view(-1, 2, 3), (count, 3, size, size), align_corners=False)
        images = torch.empty(count, 3, size, size, device=device)
        for chosen, source in ((zoom >= 0.7, self.images), (zoom < 0.7, self.half)):
            if chosen.any():
                pixels = source[rows[chosen]].float() - 114  # what lies outside is grey
                images[chosen] = F.grid_sample(pixels, grid[chosen], align_corners=False) + 114
        masks = F.grid_sample(self.masks[rows][:, None].float() + 1, grid, align_corners=False)[:, 0]
        inside = F.grid_sample(
            torch.ones_like(masks[:, None, :1, :1]).expand(-1, 1, SIDE, SIDE),
            grid,
            mode="nearest",
            align_corners=False,
        )[:, 0]
        return images, torch.where(inside > 0.5, (masks >= 1.5).long(), 255)

    def windows(self, count: int, size: int, rng: np.random.Generator) -> Tensor:
        """Windows of training photographs far from nails, enlarged to float (N, 3, S, S)."""
        device, train = self.images.device, self.part["train"]
        chosen: list[Tensor] = []
        while sum(map(len, chosen)) < count:
            tries = 8 * count
            rows = train[torch.randint(len(train), (tries,), device=device)]
            side = torch.randint(64, 300, (tries,), device=device)
            left, top = ((torch.rand(tries, device=device) * (SIDE - side)).long() for _ in range(2))
            sums = self.sums[rows]
            n = torch.arange(tries, device=device)
            nail = sums[n, top + side, left + side] - sums[n, top, left + side]
            nail = nail - sums[n, top + side, left] + sums[n, top, left]
            free = nail == 0
            chosen.append(torch.stack([rows, left, top, side], 1)[free])
        rows, left, top, side = torch.cat(chosen)[:count].T
        extent, zero = side / SIDE, torch.zeros(count, device=device)
        center = ((left + side / 2) / (SIDE / 2) - 1, (top + side / 2) / (SIDE / 2) - 1)
        theta = torch.stack([extent, zero, center[0], zero, extent, center[1]], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, (count, 3, size, size), align_corners=False)
        images = F.grid_sample(self.images[rows].float(), grid, padding_mode="border", align_corners=False)
        for number in range(count):
            if rng.random() < 0.25:
                images[number] = images[number][torch.from_numpy(rng.permutation(3)).to(device)]
            if rng.random() < 0.15:
                images[number] = 255 - images[number]
            if rng.random() < 0.2:
                images[number] = torch.roll(images[number], size // 2, 2)
        return images


def _uniform(shape: int | tuple[int, ...], device: object, low: float, high: float) -> Tensor:
    return torch.rand(shape, device=device) * (high - low) + low


def draw_negative(size: int, rng: np.random.Generator, device: str) -> Tensor:
    """One drawn image without a hand: flat, ramp, texture, noise, stripes, or things; float (3, S, S)."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size, device=device)] * 2, indexing="ij")

    def color(low: float = 0, high: float = 255, grey: float = 0.4) -> Tensor:
        values = np.full(3, rng.uniform(low, high)) if rng.random() < grey else rng.uniform(low, high, 3)
        return torch.from_numpy(values).float().to(device)[:, None, None]

    kind = rng.integers(8)
    base = color()
    if kind == 1 or rng.random() < 0.2:
        base = SKIN[rng.integers(len(SKIN))].to(device)[:, None, None] * float(rng.normal(1, 0.05))
    image = base.expand(3, size, size).clone()
    if kind in (2, 5, 6, 7) or rng.random() < 0.4:  # a ramp
        slope = torch.from_numpy(rng.normal(0, 60, (3 if rng.random() < 0.5 else 1, 2))).float().to(device)
        image = image + slope[:, 0, None, None] * x + slope[:, 1, None, None] * y
    if kind in (3, 6) or rng.random() < 0.25:  # a texture
        cells = int(rng.choice([3, 6, 12, 30, 80]))
        noise = torch.randn(1, 1 if rng.random() < 0.6 else 3, cells, cells, device=device)
        image = image + F.interpolate(noise, size=(size, size), mode="bicubic")[0] * float(rng.uniform(3, 45))
    if kind == 4:
        channels = 3 if rng.random() < 0.5 else 1
        image = image + torch.randn(channels, size, size, device=device) * float(rng.uniform(5, 80))
    if kind in (5, 7):  # stripes or checks
        angle, frequency = rng.uniform(0, math.pi), rng.uniform(3, 60)
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        wave = torch.sin(along * frequency)
        if rng.random() < 0.5:
            wave = wave.sign() * (torch.sin(across * frequency).sign() if rng.random() < 0.6 else 1)
        strength = rng.normal(0, 35, 3) if rng.random() < 0.5 else np.full(3, rng.normal(0, 40))
        image = image + wave * torch.from_numpy(strength).float().to(device)[:, None, None]
    if kind in (6, 7) or rng.random() < 0.35:  # things: superellipses and rings, many of them pale
        for _ in range(int(rng.integers(1, 14))):
            center, angle = rng.uniform(-1, 1, 2), rng.uniform(0, math.pi)
            radius = rng.uniform(0.03, 0.6)
            flat = radius * rng.uniform(0.25, 1)
            u = (x - center[0]) * math.cos(angle) + (y - center[1]) * math.sin(angle)
            v = (y - center[1]) * math.cos(angle) - (x - center[0]) * math.sin(angle)
            power, soft = float(rng.choice([2, 2, 2, 4, 8])), float(rng.choice([60, 20, 6]))
            distance = (u / radius).abs() ** power + (v / flat).abs() ** power
            alpha = torch.sigmoid((1 - distance) * soft)
            if rng.random() < 0.25:
                alpha = alpha * torch.sigmoid((distance - rng.uniform(0.3, 0.9)) * soft)
            paint = color(170, 255, 0) if rng.random() < 0.4 else color(grey=0)
            if rng.random() < 0.6:
                side = float(rng.choice([-1, 1]))
                paint = paint * (1 - float(rng.uniform(0, 0.5)) * (u / radius).clamp(-1, 1) * side)
            gloss = torch.exp(-((u / radius - 0.3) ** 2 + (v / flat - 0.3) ** 2) * 12)
            image = image * (1 - alpha) + alpha * (paint + gloss * float(rng.choice([0, 60, 120])))
    return image.clamp(0, 255)


def augment_color(images: Tensor, masks: Tensor, rng: np.random.Generator) -> Tensor:
    """Other polish on some nails; hue, saturation, contrast, brightness, gamma, blur and noise."""
    count, device = len(images), images.device

    def factor(low: float, high: float) -> Tensor:
        return _uniform((count, 1, 1, 1), device, low, high)

    painted = torch.rand(count, device=device) < 0.1
    if painted.any():
        nail = (masks[painted] == 1).float()[:, None]
        grey = images[painted].mean(1, keepdim=True)
        mean = (grey * nail).sum((2, 3), keepdim=True) / nail.sum((2, 3), keepdim=True).clamp(min=1)
        polish = torch.rand(len(nail), 3, 1, 1, device=device) * 255 * 0.85 + (grey - mean) * 0.9
        nail = F.avg_pool2d(nail, 3, 1, 1)
        images[painted] = images[painted] * (1 - nail) + nail * polish
    matrix = YIQ.to(device)
    yiq = torch.einsum("ij,njhw->nihw", matrix, images)
    wild = _uniform(count, device, -math.pi, math.pi) * (torch.rand(count, device=device) < 0.1)
    mild = torch.rand(count, device=device) < 0.7
    angle = torch.where(mild, _uniform(count, device, -0.35, 0.35), wild)[:, None, None]
    saturation = _uniform(count, device, 0.5, 1.5) * (torch.rand(count, device=device) >= 0.04)
    i, q = yiq[:, 1].clone(), yiq[:, 2].clone()
    yiq[:, 1] = (i * angle.cos() - q * angle.sin()) * saturation[:, None, None]
    yiq[:, 2] = (i * angle.sin() + q * angle.cos()) * saturation[:, None, None]
    images = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), yiq)
    images = (images - 128) * factor(0.65, 1.4) + 128 + factor(-45, 45)
    images = images * (1 + torch.randn(count, 3, 1, 1, device=device) * 0.07)
    images = 255 * (images.clamp(0, 255) / 255) ** torch.exp(factor(-0.35, 0.35))
    blurred = torch.rand(count, device=device) < 0.2
    if blurred.any():
        distance = torch.arange(-4, 5, device=device).float()
        kernel = torch.exp(-(distance**2) / 2 / float(rng.uniform(0.4, 2.0)) ** 2)
        kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
        part = F.conv2d(F.pad(images[blurred], (4, 4, 0, 0), mode="replicate"), kernel, groups=3)
        part = F.conv2d(F.pad(part, (0, 0, 4, 4), mode="replicate"), kernel.transpose(2, 3), groups=3)
        images[blurred] = part
    noisy = torch.rand(count, device=device) < 0.3
    if noisy.any():
        images[noisy] += torch.randn_like(images[noisy]) * float(rng.uniform(2, 14))
    return images.clamp(0, 255).round()


def upsampled_logits(network: EfficientNet, images: Tensor) -> Tensor:
    """Logits float32 (N, 2, H, W) at the images' size; images float (N, 3, H, W), 0..255."""
    logits = network.logits((images - 255 * network.mean) / (255 * network.std))
    return F.interpolate(logits.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def evaluate(network: EfficientNet, data: Photographs, part: str, size: int) -> tuple[float, float]:
    """Dice over all pixels and mean Dice of the images, at the photographs' own size."""
    network.eval()
    totals, dice = torch.zeros(3, device=data.images.device), []
    for rows in data.part[part].split(32):
        images = F.interpolate(data.images[rows].float(), size=(size, size), mode="bilinear", antialias=True)
        padded = F.pad(images - 114, (0, -size % 32, 0, -size % 32)) + 114
        logits = upsampled_logits(network, padded)[..., :size, :size]
        found = F.interpolate(logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False).argmax(1) == 1
        truth = data.masks[rows] == 1
        counts = torch.stack(
            [(found & truth).sum((1, 2)), (found & ~truth).sum((1, 2)), (~found & truth).sum((1, 2))]
        )
        totals += counts.sum(1)
        dice.append(2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]))
    each = torch.cat(dice)
    return float(2 * totals[0] / (2 * totals[0] + totals[1] + totals[2])), float(each[~each.isnan()].mean())


def train(
    data: Photographs, seconds: float, batch: int = 32, lr: float = 1.5e-3, seed: int = 0
) -> EfficientNet:
    """Trains for some seconds and returns the averaged network."""
    device = data.images.device.type
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = EfficientNet("lite0", ["background", "nail"]).to(device, memory_format=torch.channels_last)
    average = EfficientNet("lite0", ["background", "nail"]).to(device).requires_grad_(False)
    average.load_state_dict(network.state_dict())
    encoder = {id(parameter) for parameter in network.encoder.parameters()}
    groups = []
    for inside in (True, False):
        for decays in (True, False):
            chosen = [
                p for p in network.parameters() if (id(p) in encoder) == inside and (p.ndim > 1) == decays
            ]
            base = lr * (0.3 if inside else 1)
            groups.append({"params": chosen, "lr": base, "base": base, "weight_decay": 0.02 * decays})
    optimizer = torch.optim.AdamW(groups, fused=device == "cuda")
    negatives, hard, mined, step, start = max(1, batch // 10), None, 0.25, 0, time.time()
    while (progress := (time.time() - start) / seconds) < 1:
        if progress > mined:
            mined += 0.1
            hard = mine(average, data, hard, rng)
        size = int(rng.choice([320, 384, 448, 512, 576]))
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * min(1, step / 300) * (1 - progress) ** 0.9
        train_rows = data.part["train"]
        with torch.no_grad():
            rows = train_rows[torch.randint(len(train_rows), (batch - negatives,), device=device)]
            images, masks = data.crops(rows, size)
            kept = round(negatives * 0.5) if hard is not None else 0
            parts = [images]
            if kept:
                picks = hard[torch.randint(len(hard), (kept,), device=device)].float()
                parts.append(F.interpolate(picks, size=(size, size), mode="bilinear"))
            parts += [draw_negative(size, rng, device)[None] for _ in range((negatives - kept) // 2)]
            parts.append(data.windows(negatives - kept - (negatives - kept) // 2, size, rng))
            empty = torch.zeros(negatives, size, size, dtype=torch.long, device=device)
            masks = torch.cat([masks, empty])
            images = augment_color(torch.cat(parts), masks, rng).contiguous(memory_format=torch.channels_last)
        network.train()
        with torch.autocast(device, torch.bfloat16):
            logits = upsampled_logits(network, images)
        counted = masks != 255
        nail, probability = (masks == 1).float(), logits.softmax(1)[:, 1] * counted
        overlap = (2 * (probability * nail).sum() + 1) / (probability.sum() + nail.sum() + 1)
        loss = F.cross_entropy(logits, masks, ignore_index=255) + 1 - overlap
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        decay = min(0.999, (1 + step) / (10 + step))
        pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
        floats = [(a, b) for a, b in pairs if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
        step += 1
    print(f"{step} steps of {batch} images")
    return average


@torch.no_grad()
def mine(network: EfficientNet, data: Photographs, hard: Tensor | None, rng: np.random.Generator) -> Tensor:
    """The negatives on which the network finds most nail, uint8 (up to 600, 3, 416, 416), newest first."""
    network.eval()
    images, scores = [], []
    for _ in range(12):
        drawn = torch.stack([draw_negative(416, rng, data.images.device.type) for _ in range(16)])
        candidates = torch.cat([data.windows(48, 416, rng), drawn])
        nail = upsampled_logits(network, candidates).softmax(1)[:, 1]
        scores.append((nail > 0.3).float().mean((1, 2)) + 0.1 * nail.mean((1, 2)))
        images.append(candidates.round().byte())
    newest = torch.cat(images)[torch.cat(scores).topk(150).indices]
    return newest if hard is None else torch.cat([newest, hard])[:600]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nails", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--seconds", type=float, default=235)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    photographs = Photographs(options.nails, "cuda" if torch.cuda.is_available() else "cpu")
    trained = train(photographs, options.seconds, seed=options.seed)
    for eval_size in (416, 480, 512, 544, 640):
        dice, per_image = evaluate(trained, photographs, "val", eval_size)
        print(f"{eval_size} px: val Dice {dice:.4f}, per image {per_image:.4f}")
    trained.new_head = False
    info = model_folder.describe_network(trained, image_size=512)
    model_folder.save_model_folder(options.out, trained.cpu(), info)
