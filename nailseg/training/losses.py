"""Cross-entropy, soft Dice and Lovász, in float32, finite on any batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from nailseg.types import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that count.

    The usual mean divides by the number of counted pixels and is nan when there are none; here such a batch
    has loss 0 and gradient 0.

    Args:
        logits: (N, C, H, W).
        target: int64 (N, H, W), class index or 255.

    Returns:
        float32 scalar.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (target != IGNORE_INDEX).sum().clamp(min=1)


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice of the softmax probabilities, over all pixels of the batch (Milletari et al. 2016).

    Mean over the foreground classes that occur in the batch's truth; a batch without any has loss 0 (false
    positives there are the cross-entropy's business: the Dice of an absent class is 0 whatever is predicted).

    Args:
        logits: (N, C, H, W), the first class is the background.
        target: int64 (N, H, W), class index or 255.

    Returns:
        float32 scalar in 0..1.
    """
    n_classes = logits.shape[1]
    counted = target != IGNORE_INDEX
    # per class rather than one-hot: a one-hot tensor of the batch costs C times the memory
    probability = logits.float().softmax(1) * counted[:, None]
    loss = n_present = probability.new_zeros(())
    for c in range(1, n_classes):
        truth = target == c
        p = probability[:, c]
        size = truth.sum()
        ratio = 2 * (p * truth).sum() / (p.sum() + size).clamp(min=1e-6)
        present = (size > 0).to(ratio.dtype)  # stays on the device: no synchronisation per class
        loss, n_present = loss + present * (1 - ratio), n_present + present
    return loss / n_present.clamp(min=1)


def lovasz_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász extension of one minus the IoU (Berman et al. 2018), mean over images and classes.

    The background is one of the classes: for two of them that is the symmetric form. On predictions that are
    0 or 1 it is one minus the IoU, where that of a class neither there nor predicted is 1; between, convex.

    Args:
        logits: (N, C, H, W).
        target: int64 (N, H, W), class index or 255.

    Returns:
        float32 scalar in 0..1.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None]
    truth = target.flatten(1)[:, None] == classes  # (N, C, pixels)
    counted = (target != IGNORE_INDEX).flatten(1)[:, None]
    errors = (truth.float() - logits.float().softmax(1).flatten(2)).abs() * counted
    errors, order = errors.sort(-1, descending=True)  # pixels that do not count come last, and add nothing
    there = truth.gather(-1, order)
    size = there.sum(-1, keepdim=True)  # integers: float32 loses counts above 2^24
    jaccard = 1 - (size - there.cumsum(-1)) / (size + (~there).cumsum(-1))
    steps = jaccard.diff(prepend=torch.zeros_like(jaccard[..., :1]))
    return (errors * steps).sum(-1).mean()


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    cross_entropy_weight: float = 1.0,
    dice_weight: float = 1.0,
    lovasz_weight: float = 0.0,
) -> dict[str, Tensor]:
    """The weighted sum `loss` and its parts `cross_entropy`, `dice_loss` and, if weighted, `lovasz_loss`."""
    parts = {"cross_entropy": cross_entropy(logits, target), "dice_loss": soft_dice_loss(logits, target)}
    total = cross_entropy_weight * parts["cross_entropy"] + dice_weight * parts["dice_loss"]
    if lovasz_weight:  # it sorts all pixels: not for nothing
        parts["lovasz_loss"] = lovasz_loss(logits, target)
        total = total + lovasz_weight * parts["lovasz_loss"]
    return {"loss": total, **parts}
