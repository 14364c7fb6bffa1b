"""The optimizer settings of the SegFormer paper: AdamW in four parameter groups, warm-up, polynomial decay.

Xie et al. 2021, "SegFormer", section 4.1, and the configs of the paper's code: no weight decay on norms and
biases, the head's learning rate ten times the encoder's.
"""

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

MAX_WARMUP_STEPS = 1500  # the paper's


def parameter_groups(
    network: nn.Module, lr: float, weight_decay: float, head_lr_multiplier: float
) -> list[dict[str, object]]:
    """Sorts the parameters into encoder and head, with and without weight decay.

    Args:
        network: whose `encoder` has the parameters that are not the head's (`models.base.Network`).
        lr: of the encoder.
        weight_decay: of matrices and kernels; vectors (norms, biases) have none.
        head_lr_multiplier: the head's learning rate over the encoder's.

    Returns:
        Four groups for torch.optim, each with a `name`; every trainable parameter in exactly one of them.

    Raises:
        ValueError: if a group is empty: the network has no encoder or no head.
    """
    names = ("encoder", "encoder_no_decay", "head", "head_no_decay")
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    encoder = {id(parameter) for parameter in getattr(network, "encoder", network).parameters()}
    for parameter in network.parameters():
        if parameter.requires_grad:
            part = "encoder" if id(parameter) in encoder else "head"
            groups[part if parameter.ndim > 1 else f"{part}_no_decay"].append(parameter)
    if empty := [name for name, members in groups.items() if not members]:
        raise ValueError(f"expected parameters in all groups, found none in {empty}: no encoder or no head")
    return [
        {
            "name": name,
            "params": members,
            "lr": lr * (head_lr_multiplier if name.startswith("head") else 1.0),
            "weight_decay": 0.0 if name.endswith("no_decay") else weight_decay,
        }
        for name, members in groups.items()
    ]


def warmup_steps(total: int, share: float) -> int:
    """Length of the warm-up: a share of the run, at most `MAX_WARMUP_STEPS`, at least 1.

    >>> warmup_steps(1000, 0.05), warmup_steps(160_000, 0.05)
    (50, 1500)
    """
    return max(1, min(MAX_WARMUP_STEPS, round(share * total)))


def warmup_poly(step: int, total: int, warmup: int, power: float) -> float:
    """The factor on the learning rate (0..1): linear increase, then polynomial decay to 0 at `total`.

    Args:
        step: optimizer steps done, 0-based.
        total: optimizer steps of the whole run.
        warmup: steps of the linear increase.
        power: of the decay; 1.0 is linear.
    """
    increase = (step + 1) / warmup if step < warmup else 1.0
    return increase * max(0.0, 1 - step / total) ** power


def step_decay(step: int, period: int, factor: float) -> float:
    """The factor on the learning rate (0..1) after `step` optimizer steps, as torch's StepLR has it."""
    # StepLR itself multiplies the last learning rate: an encoder that starts frozen at 0 would stay there
    return factor ** (step // period)


def group_schedule(optimizer: Optimizer, factor: Callable[[int], float], frozen_encoder: int = 0) -> LambdaLR:
    """A schedule per optimizer step in which the encoder may start later than the head.

    Args:
        optimizer: over the groups of `parameter_groups`.
        factor: from optimizer steps done to a factor on the learning rate.
        frozen_encoder: steps at the beginning in which the encoder's learning rate is 0.
    """

    def delayed(step: int) -> float:
        return factor(step) if step >= frozen_encoder else 0.0

    encoder = [str(group["name"]).startswith("encoder") for group in optimizer.param_groups]
    return LambdaLR(optimizer, [delayed if is_encoder else factor for is_encoder in encoder])
