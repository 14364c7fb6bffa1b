"""SegFormer: uint8 images in, full-size logits out, around transformers' `SegformerForSemanticSegmentation`.

The paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.utils import logging as hf_logging

from nailseg.errors import ConfigError, WeightsError
from nailseg.models import weights as files
from nailseg.models.decode_head import DecodeHead

logger = logging.getLogger("nailseg")

DEFAULT_CLASSES = ("background", "nail")

# depths per stage, widths per stage, decoder width (table 6 of the paper's appendix)
_WIDE = (64, 128, 320, 512)
ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "b0": ((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": ((2, 2, 2, 2), _WIDE, 256),
    "b2": ((3, 4, 6, 3), _WIDE, 768),
    "b3": ((3, 4, 18, 3), _WIDE, 768),
    "b4": ((3, 8, 27, 3), _WIDE, 768),
    "b5": ((3, 6, 40, 3), _WIDE, 768),
}
_CLASSIFIER = ("decode_head.classifier.weight", "decode_head.classifier.bias")


class SegFormer(nn.Module):
    """A SegFormer whose decode head is the exact rewrite of `DecodeHead`, with normalisation inside.

    Args:
        weights: a hub name (`nvidia/mit-b0`, `nvidia/segformer-b4-finetuned-ade-512-512`), a local folder as
            `save_pretrained` writes it (old and new key names), or `b0` … `b5` for the architecture with the paper's
            initialisation and no download.
        class_names: order is the class index, the first is background. None keeps a segmentation checkpoint's own
            labels; `b0` … `b5` and encoders without a decode head take background and nail. Other names than the
            checkpoint's give it a new classifier; all else stays.
        drop_path: stochastic depth of the last block; the other blocks' rises linearly from 0.

    Attributes:
        hf: the transformers `SegformerForSemanticSegmentation` inside; its state dict is transformers' own.
        class_names: list of names, in index order.
        origin: `weights` (what the weights came from) and `licence`.
        new_head: True if the classifier is freshly initialised.
        mean: float (1, 3, 1, 1), RGB mean of images in 0..1; not part of the state dict.
        std: as `mean`, standard deviation.

    Raises:
        WeightsError: weights that cannot be found or do not fit.
        ConfigError: fewer than two class names, or one name twice.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str, class_names: Sequence[str] | None = None, drop_path: float = 0.1) -> None:
        super().__init__()
        weights = str(weights)
        if weights in ARCHITECTURES:
            depths, widths, decoder = ARCHITECTURES[weights]
            config = {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}
            hf = _build(config, class_names or DEFAULT_CLASSES, drop_path)
            origin = {"weights": f"{weights}, the paper's initialisation", "licence": files.NO_LICENCE}
            self._adopt(hf, files.IMAGENET_MEAN, files.IMAGENET_STD, origin, new_head=True)
            return
        source = files.find(weights)
        hf, new_head = _load(source, class_names, drop_path)
        files.warn_if_non_commercial(source.origin)
        self._adopt(hf, source.mean, source.std, source.origin, new_head)

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        class_names: Sequence[str],
        drop_path: float = 0.1,
        mean: Sequence[float] = files.IMAGENET_MEAN,
        std: Sequence[float] = files.IMAGENET_STD,
        origin: dict[str, str] | None = None,
    ) -> Self:
        """Builds the network of a config.json's content with the paper's initialisation; it never looks at a file.

        For checkpoints, whose state dict is loaded afterwards, and for tiny networks in tests.

        Args:
            config: what `model.hf.config.to_dict()` gave; what it leaves out has SegFormer-B0's value.
            class_names: order is the class index.
            drop_path: as in the constructor.
            mean: three values, for images in 0..1.
            std: as `mean`.
            origin: what the weights that will be loaded came from.
        """
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        origin = origin or {"weights": "the paper's initialisation", "licence": files.NO_LICENCE}
        self._adopt(_build(config, class_names, drop_path), mean, std, dict(origin), new_head=True)
        return self

    def _adopt(
        self,
        hf: SegformerForSemanticSegmentation,
        mean: Sequence[float],
        std: Sequence[float],
        origin: dict[str, str],
        new_head: bool,
    ) -> None:
        hf.decode_head = DecodeHead(hf.decode_head)
        self.hf = hf
        self.origin = origin
        self.new_head = new_head
        # not in the state dict: it stays transformers' own
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def class_names(self) -> list[str]:
        return [self.hf.config.id2label[index] for index in range(self.hf.config.num_labels)]

    def forward(self, image: Tensor) -> Tensor:
        """Segments a batch.

        Args:
            image: (N, 3, H, W), RGB, uint8 or float, 0..255. Any size; multiples of 32 are worth 0.5-1.0 mIoU.

        Returns:
            float (N, C, H, W): logits at the images' size.
        """
        pixels = (image.to(self.mean.dtype) - 255 * self.mean) / (255 * self.std)
        logits = self.hf(pixel_values=pixels).logits
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


def initialise_as_paper(module: nn.Module) -> None:
    """Initialises as the paper's code does; transformers' 0.02 for every convolution hardly learns from scratch."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels / part.groups
            nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
            part.reset_parameters()


def _initialise_classifier(classifier: nn.Conv2d) -> None:
    """As the paper's code: torch's default. By fan-out it would be normal(0, 1) for two classes, far too large."""
    classifier.reset_parameters()
    nn.init.zeros_(classifier.bias)


def _build(config: dict[str, Any], class_names: Sequence[str], drop_path: float) -> SegformerForSemanticSegmentation:
    hf = SegformerForSemanticSegmentation(_config(config, _checked(class_names), drop_path))
    initialise_as_paper(hf)
    _initialise_classifier(hf.decode_head.classifier)
    return hf


def _checked(class_names: Sequence[str]) -> list[str]:
    names = list(class_names)
    if isinstance(class_names, str) or len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"class names: expected at least two different names, the first for background, found {class_names!r}. "
            f"For one kind of thing give [background, thing]."
        )
    return names


def _config(config: dict[str, Any], class_names: Sequence[str], drop_path: float) -> SegformerConfig:
    """A SegformerConfig of the architecture's own fields: a config.json can ask transformers for much more."""
    known = {*SegformerConfig().to_dict()} - {"id2label", "label2id", "dtype", "architectures", "model_type"}
    kept = {key: value for key, value in config.items() if key in known}
    return SegformerConfig(
        **kept | {"drop_path_rate": drop_path},
        id2label=dict(enumerate(class_names)),
        label2id={name: index for index, name in enumerate(class_names)},
        attn_implementation="sdpa",
        dtype="float32",
    )


def _load(
    source: files.Source, class_names: Sequence[str] | None, drop_path: float
) -> tuple[SegformerForSemanticSegmentation, bool]:
    """Loads a folder's tensors into the stock class, which maps old key names by its own name."""
    tensors = files.read_tensors(source.folder)
    if not any(name.startswith(("segformer.", "decode_head.")) for name in tensors):  # a bare encoder's
        tensors = {f"segformer.{name}": tensor for name, tensor in tensors.items()}
    has_head = any(name.startswith("decode_head.") for name in tensors)
    own = _own_labels(source.config)
    names = _checked(class_names or (own if has_head else DEFAULT_CLASSES))
    new_head = not has_head or names != own
    dropped = _CLASSIFIER if has_head else ("classifier.weight", "classifier.bias")
    if new_head:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in dropped}

    with _quiet_transformers():
        hf, info = SegformerForSemanticSegmentation.from_pretrained(
            None,
            config=_config(source.config, names, drop_path),
            state_dict=tensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    expected = set(_CLASSIFIER) if has_head else {f"decode_head.{key}" for key in hf.decode_head.state_dict()}
    faults = {
        "missing": sorted(set(info["missing_keys"]) - (expected if new_head else set())),
        "unexpected": sorted(info["unexpected_keys"]),
        "of another size": sorted(str(key) for key in info["mismatched_keys"]),
    }
    if any(faults.values()):
        found = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)
        raise WeightsError(f"{source.folder}: the weights do not fit their config.json. {found}.")
    if not has_head:
        initialise_as_paper(hf.decode_head)
    if new_head:
        _initialise_classifier(hf.decode_head.classifier)
    return hf, new_head


def _own_labels(config: dict[str, Any]) -> list[str]:
    labels = config.get("id2label") or {index: f"LABEL_{index}" for index in range(config.get("num_labels", 2))}
    return [str(labels[key]) for key in sorted(labels, key=int)]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
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
