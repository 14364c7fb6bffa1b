"""Any semantic segmentation network of transformers behind the interface of all architectures.

Two convolutional baselines are built in, from random weights and without a download: UperNet on ConvNeXt-T
(Xiao et al. 2018, Liu et al. 2022) and DeepLabV3 on MobileNetV2 (Chen et al. 2017, Sandler et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel

from nailseg.errors import WeightsError
from nailseg.models import pretrained
from nailseg.models.base import Network
from nailseg.models.loading import (
    choose_class_names,
    initialize_as_paper,
    initialize_classifier,
    load_stock_network,
)

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
        "classifier_dropout_prob": 0.1,  # transformers' 0.8 is TensorFlow's share that is kept
    },
}
# what a config.json may ask transformers for beyond an architecture: code, downloads, other number formats
_NOT_OURS = frozenset(
    {
        *("auto_map", "quantization_config", "use_pretrained_backbone", "dtype", "torch_dtype", "num_labels"),
        *("architectures", "_name_or_path", "transformers_version", "id2label", "label2id"),
    }
)


def _config(content: dict[str, Any], class_names: Sequence[str], drop_path: float) -> PreTrainedConfig:
    content = {key: value for key, value in content.items() if key not in _NOT_OURS}
    names = dict(enumerate(class_names))
    try:
        config = AutoConfig.for_model(
            **content, id2label=names, label2id={name: i for i, name in names.items()}, dtype="float32"
        )
    except Exception as error:  # unknown kinds, wrong types: transformers' error classes are not public
        raise WeightsError(f"the network's config: {error}") from error
    for part in (config, getattr(config, "backbone_config", None)):
        if hasattr(part, "drop_path_rate"):
            part.drop_path_rate = drop_path
    if hasattr(config, "use_auxiliary_head"):
        config.use_auxiliary_head = False  # it serves transformers' own loss only
    return config


def _stock(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        return AutoModelForSemanticSegmentation.from_config(config)
    except Exception as error:  # no segmentation network of that kind, or a library that it wants
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise WeightsError(
            f"model_type {config.model_type!r}: expected a kind that transformers' "
            f"AutoModelForSemanticSegmentation builds with what is installed, found {reason}"
        ) from error


def _classifier_keys(config: PreTrainedConfig) -> set[str]:
    """The tensors whose size depends on the number of classes, whatever they are called."""
    wider = type(config).from_dict(
        config.to_dict() | {"id2label": dict(enumerate(range(config.num_labels + 1)))}
    )
    with torch.device("meta"):
        ours, other = (_stock(each).state_dict() for each in (config, wider))
    return {key for key, tensor in ours.items() if tensor.shape != other[key].shape}


class AutoNetwork(Network):
    """A network of transformers with normalisation inside.

    `weights` is a hub name, a folder as `save_pretrained` writes it (config.json alone: random weights), or
    `upernet-convnext-tiny` or `mobilenetv2-deeplabv3` for random weights without any file. Random weights
    are drawn as SegFormer's, by fan-out: with transformers' small ones networks hardly learn. All else:
    `Network`.
    """

    architecture = "auto"

    @staticmethod
    def random_config(weights: str) -> dict[str, Any] | None:
        """The config of a built-in baseline, or of a folder that has no weights."""
        if Path(weights).is_dir() and pretrained.weight_file(Path(weights)) is None:
            return pretrained.find_weights(weights, None).config
        return BASELINES.get(weights)

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        hf_config = _config(config, class_names, drop_path)
        hf = _stock(hf_config)
        initialize_as_paper(hf)
        self._adopt(hf, _classifier_keys(hf_config))

    def _load(self, source: pretrained.Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        names, new_head = choose_class_names(source, True, class_names)
        config = _config(source.config, names, drop_path)
        classifier = _classifier_keys(config) if new_head else set()
        tensors = pretrained.read_tensors(source.folder)
        tensors = {key: t for key, t in tensors.items() if not key.startswith("auxiliary_head.")}
        with torch.device("meta"):
            stock_class = type(_stock(config))
        self._adopt(
            load_stock_network(stock_class, config, tensors, source.folder, classifier.__contains__),
            classifier,
        )
        return new_head

    def _adopt(self, hf: PreTrainedModel, new: set[str]) -> None:
        for module in {key.rpartition(".")[0] for key in new}:
            initialize_classifier(hf.get_submodule(module))
        for module in hf.modules():
            # transformers hands TensorFlow's decay of running statistics to torch, where it means 1 - decay
            if isinstance(module, nn.BatchNorm2d) and module.momentum and module.momentum > 0.5:
                module.momentum = 0.1
        if unused := getattr(hf.base_model, "conv_1x1", None):
            unused.requires_grad_(False)  # MobileNetV2's classification layer: DDP would wait for it
        self.hf, self.hf_config = hf, hf.config

    @property
    def encoder(self) -> nn.Module:
        """See `Network`."""
        return getattr(self.hf, "backbone", None) or self.hf.base_model
