"""Common steps of building a network: initialization, tensors from files, class names."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from nailseg.errors import WeightsError, shorten_list
from nailseg.models.mix_transformer import ARCHITECTURES
from nailseg.models.pretrained import Source, are_default_labels
from nailseg.types import DEFAULT_CLASSES, check_class_names


def initialize_as_paper(module: nn.Module) -> None:
    """Initializes as the paper's code does; with transformers' 0.02 for convolutions it hardly learns."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels / part.groups
            nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
            part.reset_parameters()
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)


def initialize_classifier(classifier: nn.Conv2d) -> None:
    """Initializes as torch and the paper's code do: by fan-out it would be normal(0, 1) for two classes."""
    classifier.reset_parameters()
    nn.init.zeros_(classifier.bias)


def decoder_width(depths: Any, widths: Any) -> int:
    """Returns the paper's width of the decode head for an encoder's blocks and widths per stage, else 256."""
    known = ((list(blocks), list(stages), decoder) for blocks, stages, decoder in ARCHITECTURES.values())
    return next((decoder for blocks, stages, decoder in known if (blocks, stages) == (depths, widths)), 256)


def choose_class_names(
    source: Source, has_head: bool, class_names: Sequence[str] | None
) -> tuple[list[str], bool]:
    """Returns the class names, and whether they need a new classifier."""
    own = source.labels
    if not has_head:
        return check_class_names(DEFAULT_CLASSES if class_names is None else class_names), True
    if class_names is not None:
        names = check_class_names(class_names)
        # default labels accept any names of the same number
        return names, names != own and not (len(names) == len(own) and are_default_labels(own))
    if len(own) < 2:
        raise WeightsError(
            f"{source.folder}: expected at least two classes, found {own}. Give class names, such as "
            f"background and nail, to put a new classifier on these weights."
        )
    return own, False


def make_config(fields: dict[str, Any], class_names: Sequence[str], **options: Any) -> PreTrainedConfig:
    """Creates transformers' config from fields of a config.json, with `model_type`, and further options."""
    try:
        return AutoConfig.for_model(
            **fields,
            **options,
            id2label=dict(enumerate(class_names)),
            label2id={name: index for index, name in enumerate(class_names)},
            dtype="float32",  # else a half-precision folder would load in half precision
        )
    except Exception as error:  # the error class of transformers' type check is not public
        raise WeightsError(f"the network's config: {error}") from error


def load_network(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: dict[str, Tensor],
    folder: Path,
    new: tuple[str, ...],
) -> PreTrainedModel:
    """Loads tensors, with new or old key names, into one of transformers' own networks.

    No key may be missing, unexpected or of another size, except those that start with `new`, which the caller
    initializes. transformers maps old names by the name of the class: a subclass would keep random weights.
    """
    try:
        with quiet_transformers():
            hf, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below, all together
            )
    except Exception as error:  # an inconsistent config causes many kinds
        raise WeightsError(f"{folder}: no network can be built from its config.json ({error!r}).") from error
    sizes = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    problems = {
        "missing": {key for key in info["missing_keys"] if not key.startswith(new)},
        "unexpected": set(info["unexpected_keys"]),
        "of another size": {key for key in sizes if not key.startswith(new)},
    }
    if any(problems.values()) or info.get("error_msgs"):
        found = "; ".join(f"{kind}: {shorten_list(sorted(keys))}" for kind, keys in problems.items() if keys)
        raise WeightsError(
            f"{folder}: expected exactly the tensors of the network in its config.json, found "
            f"{found}{info.get('error_msgs') or ''}. Download both again, from one place."
        )
    return hf


def rename_key(key: str, patterns: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]) -> str:
    """Applies regular expressions and their replacements to a key of a state dict, in order."""
    for pattern, replacement in patterns:
        key = re.sub(pattern, replacement, key)
    return key


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' load report and progress bars; problems are raised as errors instead."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
