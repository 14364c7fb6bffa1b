"""Any semantic segmentation network of transformers as a `Network`.

Two convolutional baselines need no download, with random weights: UperNet on ConvNeXt-T (Xiao et al. 2018,
Liu et al. 2022) and DeepLabV3 on MobileNetV2 (Chen et al. 2017, Sandler et al. 2018).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel

from nailseg.errors import WeightsError
from nailseg.models import loading, pretrained
from nailseg.models.base import Network
from nailseg.schema import FIX

BASELINES: dict[str, dict[str, Any]] = {
    "upernet-convnext-tiny": {
        "model_type": "upernet",
        "backbone_config": {
            "model_type": "convnext",
            "hidden_sizes": [96, 192, 384, 768],
            "depths": [3, 3, 9, 3],
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
    },
    "mobilenetv2-deeplabv3": {
        "model_type": "mobilenet_v2",
        "output_stride": 8,
        "tf_padding": False,
        "classifier_dropout_prob": 0.1,  # transformers' 0.8 is the rate that TensorFlow keeps
    },
}
# fields that ask transformers for more than an architecture (code, downloads, number formats), or that depend
# on the class names
_IGNORED_FIELDS = (
    *("auto_map", "quantization_config", "use_pretrained_backbone", "dtype", "torch_dtype", "num_labels"),
    *("architectures", "_name_or_path", "transformers_version", "id2label", "label2id"),
)


def _check_limits(value: Any, name: str) -> None:
    """Raises `WeightsError` for numbers that no network has, which would take all time or memory.

    transformers has one config class per model type, so only the magnitude is known: layers up to 512, widths
    up to 16,384, other integers up to a million (vocabularies).
    """
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((name, part) for part in value)
        for key, part in items:
            _check_limits(part, str(key))
    elif isinstance(value, str) and name.endswith("attn_implementation") and "/" in value:
        expected = "expected an implementation of transformers itself, found one to download"
        raise WeightsError(f"config.json: {name}: {expected}: {value!r}. Remove the field.")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        is_width = re.search("size|dim|channels|width", name) and not name.startswith("vocab")
        limit = 512 if re.search("depth|layers|blocks", name) else 16_384 if is_width else 1_000_000
        if not abs(value) <= limit:  # nan is refused too
            raise WeightsError(f"config.json: {name}: expected at most {limit:,}, found {value}. {FIX}")


def _make_config(content: dict[str, Any], class_names: Sequence[str], drop_path: float) -> PreTrainedConfig:
    fields = {key: value for key, value in content.items() if key not in _IGNORED_FIELDS}
    _check_limits(fields, "config.json")
    config = loading.make_config(fields, class_names)
    for part in (config, getattr(config, "backbone_config", None)):
        if hasattr(part, "drop_path_rate"):
            part.drop_path_rate = drop_path
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False  # only transformers' own loss uses it
    return config


def _build_stock(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        return AutoModelForSemanticSegmentation.from_config(config)
    except Exception as error:  # no segmentation network of that type, or a missing library
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise WeightsError(
            f"model_type {config.model_type!r}: expected a type that transformers' "
            f"AutoModelForSemanticSegmentation can build here, found {reason}"
        ) from error


def _classifier_keys(config: PreTrainedConfig) -> set[str]:
    """Finds the tensors whose size depends on the number of classes, by building one class more."""
    labels = dict(enumerate(range(config.num_labels + 1)))
    wider = type(config).from_dict(config.to_dict() | {"id2label": labels})
    with torch.device("meta"):
        tensors, wider_tensors = (_build_stock(each).state_dict() for each in (config, wider))
    return {key for key, tensor in tensors.items() if tensor.shape != wider_tensors[key].shape}


class AutoNetwork(Network):
    """A network of transformers with normalization inside.

    `weights` is a hub name, a folder as `save_pretrained` writes it (`FOLDER-random`: random weights for
    its config.json), or `upernet-convnext-tiny-random` or `mobilenetv2-deeplabv3-random` without any file.
    Random weights are initialized as SegFormer's, by fan-out: with transformers' small ones networks hardly
    learn.
    Everything else is as in `Network`.
    """

    architecture = "auto"

    @staticmethod
    def random_config(architecture: str) -> dict[str, Any] | None:
        """Returns the config of a built-in baseline, or of a folder without weights."""
        folder = Path(architecture)
        if folder.is_dir() and pretrained.weight_file(folder) is None:
            return pretrained.find_weights(architecture).config
        return BASELINES.get(architecture)

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        hf_config = _make_config(config, class_names, drop_path)
        hf = _build_stock(hf_config)
        loading.initialize_as_paper(hf)
        self._wrap(hf, _classifier_keys(hf_config))

    def _load(self, source: pretrained.Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        names, new_head = loading.choose_class_names(source, True, class_names)
        config = _make_config(source.config, names, drop_path)
        classifier = _classifier_keys(config) if new_head else set()
        tensors = pretrained.read_tensors(source.folder)
        tensors = {key: t for key, t in tensors.items() if not key.startswith("auxiliary_head.")}
        with torch.device("meta"):
            stock_class = type(_build_stock(config))
        hf = loading.load_network(stock_class, config, tensors, source.folder, tuple(classifier))
        self._wrap(hf, classifier)
        return new_head

    def _wrap(self, hf: PreTrainedModel, new: set[str]) -> None:
        for module in {key.rpartition(".")[0] for key in new}:
            loading.initialize_classifier(hf.get_submodule(module))
        for module in hf.modules():
            # transformers passes TensorFlow's decay of running statistics on; torch's momentum is 1 - decay
            if isinstance(module, nn.BatchNorm2d) and module.momentum and module.momentum > 0.5:
                module.momentum = 0.1
        if unused := getattr(hf.base_model, "conv_1x1", None):
            unused.requires_grad_(False)  # MobileNetV2's classifier: DDP would wait for its gradient
        self.hf, self.hf_config = hf, hf.config

    @property
    def encoder(self) -> nn.Module:
        return getattr(self.hf, "backbone", None) or self.hf.base_model
