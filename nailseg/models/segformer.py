"""SegFormer on transformers' `SegformerForSemanticSegmentation`.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Len
from torch import nn
from transformers import PreTrainedConfig, SegformerForSemanticSegmentation
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

from nailseg.errors import WeightsError
from nailseg.models import loading, pvt
from nailseg.models.base import Network
from nailseg.models.decode_head import DecodeHead
from nailseg.models.mix_transformer import ARCHITECTURES
from nailseg.models.pretrained import Source, read_tensors
from nailseg.schema import FIX, validate

Length = Annotated[int, Ge(1), Le(64)]
Width = Annotated[int, Ge(1), Le(8192)]
Share = Annotated[float, Ge(0), Le(1)]


class Config(TypedDict, total=False):
    """The fields of a SegFormer's config.json that are used, with their limits.

    A config.json can ask transformers for more than an architecture (kernels, quantization, patches).
    """

    num_channels: Literal[3]
    num_encoder_blocks: Annotated[int, Ge(1), Le(8)]
    depths: list[Annotated[int, Ge(1), Le(128)]]
    sr_ratios: list[Length]
    hidden_sizes: list[Width]
    patch_sizes: list[Length]
    strides: list[Length]
    num_attention_heads: list[Length]
    mlp_ratios: list[Annotated[float, Gt(0), Le(16)]]
    hidden_act: Annotated[str, Len(1, 64)]
    decoder_hidden_size: Width
    reshape_last_stage: bool
    hidden_dropout_prob: Share
    attention_probs_dropout_prob: Share
    classifier_dropout_prob: Share
    initializer_range: Annotated[float, Gt(0), Le(1)]
    layer_norm_eps: Annotated[float, Gt(0), Le(1)]
    semantic_loss_ignore_index: int
    output_hidden_states: bool


PER_STAGE = (
    "depths",
    "sr_ratios",
    "hidden_sizes",
    "patch_sizes",
    "strides",
    "num_attention_heads",
    "mlp_ratios",
)
CLASSIFIER = ("decode_head.classifier.weight", "decode_head.classifier.bias")
IMAGENET_CLASSIFIER = ("classifier.weight", "classifier.bias")  # in the files of encoders


class SegFormer(Network):
    """A SegFormer with the decode head `DecodeHead` and normalization inside.

    `weights` is a hub name (`OpenGVLab/pvt_v2_b0`, see `pvt`; `nvidia/mit-b0`,
    `nvidia/segformer-b4-finetuned-ade-512-512`), a local folder as `save_pretrained` writes it (old and new
    key names), or `b0-random` … `b5-random` for the architecture with the paper's initialization and no
    download. `drop_path` is the rate of the last block; it rises
    linearly from 0 over the blocks. Everything else is as in `Network`.

    Attributes:
        hf: the transformers `SegformerForSemanticSegmentation` inside, with the same state dict.

    Example:
        >>> tiny = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
        >>> network = SegFormer.from_config(tiny, ["background", "nail"])
        >>> network(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape
        torch.Size([1, 2, 64, 96])
    """

    architecture = "segformer"
    model_types = ("segformer", pvt.MODEL_TYPE)

    @staticmethod
    def random_config(architecture: str) -> dict[str, Any] | None:
        """Returns the config of `b0` … `b5`."""
        if architecture not in ARCHITECTURES:
            return None
        depths, widths, decoder = ARCHITECTURES[architecture]
        return {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}

    def _build(self, config: dict[str, Any], class_names: list[str], drop_path: float) -> None:
        hf = SegformerForSemanticSegmentation(_make_config(config, class_names, drop_path))
        loading.initialize_as_paper(hf)
        loading.initialize_classifier(hf.decode_head.classifier)
        self._wrap(hf)

    def _load(self, source: Source, class_names: Sequence[str] | None, drop_path: float) -> bool:
        file, content = source.folder / "config.json", source.config
        tensors = read_tensors(source.folder)
        if content["model_type"] == pvt.MODEL_TYPE:
            content, tensors = pvt.translate(content, tensors, file)
        if not any(name.startswith(("segformer.", "decode_head.")) for name in tensors):  # an encoder alone
            tensors = {f"segformer.{name}": tensor for name, tensor in tensors.items()}
        has_head = any(name.startswith("decode_head.") for name in tensors)
        names, new_head = loading.choose_class_names(source, has_head, class_names)
        if has_head:
            unused = new = CLASSIFIER if new_head else ()
        else:
            unused, new = IMAGENET_CLASSIFIER, ("decode_head.",)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
        config = _make_config(content, names, drop_path, file)
        hf = loading.load_network(SegformerForSemanticSegmentation, config, tensors, source.folder, new)
        if not has_head:
            loading.initialize_as_paper(hf.decode_head)
        if new_head:
            loading.initialize_classifier(hf.decode_head.classifier)
        self._wrap(hf)
        return new_head

    def _wrap(self, hf: SegformerForSemanticSegmentation) -> None:
        hf.decode_head = DecodeHead(hf.decode_head)
        convert_to_channels_last(hf.segformer)
        self.hf, self.hf_config = hf, hf.config

    @property
    def encoder(self) -> nn.Module:
        return self.hf.segformer


def convert_to_channels_last(encoder: nn.Module) -> None:
    """Stores the convolution kernels of a token encoder channels last.

    The weights decide a convolution's memory order. Tokens are channels last in memory, so this order saves
    copies before and after each convolution.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            module.to(memory_format=torch.channels_last)


def _make_config(
    config: dict[str, Any], class_names: Sequence[str], drop_path: float, place: str | Path = "config"
) -> PreTrainedConfig:
    fields = {key: config[key] for key in Config.__annotations__ if config.get(key) is not None}
    validate(Config, fields, place)
    made = loading.make_config(
        fields | {"model_type": "segformer"},
        class_names,
        drop_path_rate=drop_path,
        attn_implementation="sdpa",
    )
    for name in PER_STAGE:
        if len(getattr(made, name)) != made.num_encoder_blocks:
            expected = f"expected {made.num_encoder_blocks} values, one a stage"
            raise WeightsError(f"{place}: {name}: {expected}, found {getattr(made, name)}. {FIX}")
    return made
