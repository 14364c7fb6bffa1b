"""Building transformers' SegFormer: the paper's architectures and initialisation, and tensors from files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)
from transformers.utils import logging as hf_logging

from nailseg.errors import WeightsError
from nailseg.models.mix_transformer import ARCHITECTURES as ARCHITECTURES
from nailseg.models.pretrained import Source, are_default_labels, read_tensors
from nailseg.types import DEFAULT_CLASSES, check_class_names

# a config.json can ask transformers for much more than an architecture (kernels, quantisation, patches): only
# these fields count
_FIELDS = (
    *("num_channels", "num_encoder_blocks", "depths", "sr_ratios", "hidden_sizes", "patch_sizes", "strides"),
    *("num_attention_heads", "mlp_ratios", "hidden_act", "decoder_hidden_size", "reshape_last_stage"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
    *("initializer_range", "layer_norm_eps", "semantic_loss_ignore_index", "output_hidden_states"),
)
_CLASSIFIER = ("decode_head.classifier.weight", "decode_head.classifier.bias")


def initialize_as_paper(module: nn.Module) -> None:
    """Initialises as the paper's code does; with transformers' 0.02 for convolutions it hardly learns."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels / part.groups
            nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
            part.reset_parameters()


def initialize_classifier(classifier: nn.Conv2d) -> None:
    """Torch's default, as in the paper's code: by fan-out it would be normal(0, 1) for two classes."""
    classifier.reset_parameters()
    nn.init.zeros_(classifier.bias)


def build(
    config: dict[str, Any], class_names: Sequence[str], drop_path: float
) -> SegformerForSemanticSegmentation:
    """A network with the paper's initialisation; fields that the config leaves out are SegFormer-B0's."""
    hf = SegformerForSemanticSegmentation(_config(config, check_class_names(class_names), drop_path))
    initialize_as_paper(hf)
    initialize_classifier(hf.decode_head.classifier)
    return hf


def _config(config: dict[str, Any], class_names: Sequence[str], drop_path: float) -> SegformerConfig:
    try:
        return SegformerConfig(
            **{key: config[key] for key in _FIELDS if key in config},
            drop_path_rate=drop_path,
            id2label=dict(enumerate(class_names)),
            label2id={name: index for index, name in enumerate(class_names)},
            attn_implementation="sdpa",
            dtype="float32",  # a half-precision folder would reload as half otherwise
        )
    except Exception as error:  # transformers' own check of types, whose error class is not public
        raise WeightsError(f"the network's config: {error}") from error


def load(
    source: Source, class_names: Sequence[str] | None, drop_path: float
) -> tuple[SegformerForSemanticSegmentation, bool]:
    """Loads a folder's tensors into the stock class, the only one whose old key names transformers maps.

    Returns:
        The network, and whether its classifier is new.
    """
    tensors = read_tensors(source.folder)
    if not any(name.startswith(("segformer.", "decode_head.")) for name in tensors):  # a bare encoder's
        tensors = {f"segformer.{name}": tensor for name, tensor in tensors.items()}
    has_head = any(name.startswith("decode_head.") for name in tensors)
    names, new_head = choose_class_names(source, has_head, class_names)
    if new_head:
        # beside an encoder lies the classifier of its ImageNet training, which has no place here
        unused = _CLASSIFIER if has_head else ("classifier.weight", "classifier.bias")
        tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}

    config = _config(source.config, names, drop_path)

    def is_new(key: str) -> bool:
        return new_head and (key in _CLASSIFIER if has_head else key.startswith("decode_head."))

    hf = load_stock_network(SegformerForSemanticSegmentation, config, tensors, source.folder, is_new)
    if not has_head:
        initialize_as_paper(hf.decode_head)
    if new_head:
        initialize_classifier(hf.decode_head.classifier)
    return hf, new_head


def choose_class_names(
    source: Source, has_head: bool, class_names: Sequence[str] | None
) -> tuple[list[str], bool]:
    """The class names, and whether the classifier must be new for them."""
    own = source.labels
    if not has_head:
        return check_class_names(DEFAULT_CLASSES if class_names is None else class_names), True
    if class_names is not None:
        names = check_class_names(class_names)
        # as many names fit where nobody gave any
        return names, names != own and not (len(names) == len(own) and are_default_labels(own))
    if len(own) < 2:
        raise WeightsError(
            f"{source.folder}: expected at least two classes, found {own}. Give class names, such as "
            f"background and nail, to put a new classifier on these weights."
        )
    return own, False


def load_stock_network(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: dict[str, Tensor],
    folder: Path,
    is_new: Callable[[str], bool],
) -> PreTrainedModel:
    """Puts tensors into a network by transformers' own rules for old names; none may be left over or out.

    Args:
        model_class: a stock class: transformers maps old names by the class's name.
        config: of the network.
        tensors: its state dict, under new or old names.
        folder: for errors.
        is_new: which keys the caller initialises, and which may therefore be missing or of another size.

    Raises:
        WeightsError: other tensors than the network's.
    """
    try:
        with quiet_transformers():
            hf, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that all of them are reported, below
                dtype=torch.float32,
            )
    except Exception as error:  # a config that contradicts itself fails anywhere
        raise WeightsError(f"{folder}: no network can be built from its config.json ({error!r}).") from error
    sizes = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    faults = {
        "missing": {key for key in info["missing_keys"] if not is_new(key)},
        "unexpected": set(info["unexpected_keys"]),
        "of another size": {key for key in sizes if not is_new(key)},
    }
    if any(faults.values()) or info.get("error_msgs"):
        found = "; ".join(f"{kind}: {shorten_list(keys)}" for kind, keys in faults.items() if keys)
        raise WeightsError(
            f"{folder}: expected exactly the tensors of the network in its config.json, found "
            f"{found}{info.get('error_msgs') or ''}. Fetch both again, from one place."
        )
    return hf


def shorten_list(keys: set[str], limit: int = 8) -> str:
    """The first of the keys, for a message."""
    shown = sorted(keys)[:limit]
    return (", ".join(shown) or "none") + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Holds back transformers' load report and progress bar: what matters is raised as an error here."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
