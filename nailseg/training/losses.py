"""Cross-entropy, soft Dice, Lovász and focal loss, in float32, finite on any batch.

Each takes logits (N, C, H, W), of which the first class is the background, and a target int64 (N, H, W),
class index or 255 (ignored), and returns a float32 scalar.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nailseg.types import IGNORE_INDEX


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, each with its class's weight, float (C,).

    `F.cross_entropy` is nan for a batch of ignored pixels only; here it has loss 0 and gradient 0.
    """
    total = F.cross_entropy(logits.float(), target, class_weights, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / _weigh(target, class_weights).sum().clamp(min=1e-6)


def focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy in which a pixel counts (1 - p)^gamma, p being its own class's probability.

    Lin et al. 2017, "Focal Loss for Dense Object Detection"; `class_weights` is its alpha. Mean as in
    `cross_entropy`, which it is for gamma 0.
    """
    counted = target != IGNORE_INDEX
    log_p = logits.float().log_softmax(1).gather(1, (target * counted)[:, None])[:, 0]
    loss = -((1 - log_p.exp()) ** gamma) * log_p
    weights = _weigh(target, class_weights)
    return (loss * weights).sum() / weights.sum().clamp(min=1e-6)


def _weigh(target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Weight of each pixel, float32 (N, H, W); 0 where ignored."""
    counted = target != IGNORE_INDEX
    return counted.float() if class_weights is None else class_weights[target * counted] * counted


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice of the softmax probabilities, over all pixels of the batch (Milletari et al. 2016).

    Mean over the foreground classes that occur in the batch's truth. A batch without any has loss 0: the Dice
    of an absent class is 0 for every prediction, so the cross-entropy alone penalises false positives there.
    The loss is in 0..1.
    """
    probability = logits.float().softmax(1) * (target != IGNORE_INDEX)[:, None]
    loss = n_present = probability.new_zeros(())
    # per class rather than one-hot: a one-hot tensor of the batch costs C times the memory
    for c in range(1, logits.shape[1]):
        truth, p = target == c, probability[:, c]
        size = truth.sum()
        ratio = 2 * (p * truth).sum() / (p.sum() + size).clamp(min=1e-6)
        present = (size > 0).to(ratio.dtype)  # stays on the device: no synchronisation per class
        loss, n_present = loss + present * (1 - ratio), n_present + present
    return loss / n_present.clamp(min=1)


def lovasz_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász extension of one minus the IoU (Berman et al. 2018), mean over images and classes.

    The background is one of the classes, which for two classes is the symmetric form. For predictions of 0
    or 1 the loss is one minus the IoU (1 for a class that is neither present nor predicted); between, it is
    convex.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None]
    truth = target.flatten(1)[:, None] == classes  # (N, C, pixels)
    counted = (target != IGNORE_INDEX).flatten(1)[:, None]
    errors = (truth.float() - logits.float().softmax(1).flatten(2)).abs() * counted
    errors, order = errors.sort(-1, descending=True)  # ignored pixels come last and add 0
    present = truth.gather(-1, order)
    size = present.sum(-1, keepdim=True)  # integers: float32 loses counts above 2^24
    jaccard = 1 - (size - present.cumsum(-1)) / (size + (~present).cumsum(-1))
    steps = jaccard.diff(prepend=torch.zeros_like(jaccard[..., :1]))
    return (errors * steps).sum(-1).mean()


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    cross_entropy_weight: float = 1.0,
    dice_weight: float = 1.0,
    lovasz_weight: float = 0.0,
    focal_weight: float = 0.0,
    focal_gamma: float = 2.0,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted sum `loss` and its parts, in logs by their names: `cross_entropy`, `dice_loss`, …

    The Lovász and focal loss are computed if they have a weight. `class_weights`, float (C,), weigh the
    pixels of cross-entropy and focal loss; Dice and Lovász loss are ratios per class, which need none.

    >>> logits = torch.zeros(1, 2, 4, 4)
    >>> losses = segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    >>> {name: round(loss.item(), 4) for name, loss in losses.items()}
    {'loss': 0.6931, 'cross_entropy': 0.6931, 'dice_loss': 0.0}
    """
    parts = {
        "cross_entropy": cross_entropy(logits, target, class_weights),
        "dice_loss": soft_dice_loss(logits, target),
    }
    total = cross_entropy_weight * parts["cross_entropy"] + dice_weight * parts["dice_loss"]
    if lovasz_weight:  # sorting all pixels is slow
        parts["lovasz_loss"] = lovasz_loss(logits, target)
        total = total + lovasz_weight * parts["lovasz_loss"]
    if focal_weight:
        parts["focal_loss"] = focal_loss(logits, target, focal_gamma, class_weights)
        total = total + focal_weight * parts["focal_loss"]
    return {"loss": total, **parts}
