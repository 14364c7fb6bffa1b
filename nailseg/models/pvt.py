"""PVT v2's ImageNet encoders as SegFormer encoders: a free start (Apache-2.0) beside NVIDIA's.

Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", 2021. Its blocks are those of the
Mix Transformer: overlapping patches, attention to keys and values reduced by a convolution, and a
feed-forward part with a depth-wise convolution. So a folder of transformers' `PvtV2Model` is a SegFormer
encoder under other key names, with an `mlp_ratios` of 8, 8, 4, 4 (B5: 4, 4, 4, 4).

LayerNorm's epsilon is 1e-6 there and 1e-5 in transformers' SegFormer, which changes features by 1e-5 of the
largest. The linear variants (`pvt_v2_b2_linear`) pool before attention and do not fit.
"""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Len
from torch import Tensor
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

from nailseg.errors import WeightsError
from nailseg.models.loading import decoder_width, rename_key
from nailseg.schema import validate

MODEL_TYPE = "pvt_v2"
MLP_RATIOS = [8, 8, 4, 4]
"""Of B0 to B4; every Mix Transformer, and PVT v2's B5, has 4, 4, 4, 4."""
WAY_OUT = "Give OpenGVLab/pvt_v2_b0 … pvt_v2_b5, or nvidia/mit-b0 … mit-b5."
RENAMES = (
    (r"\.patch_embedding\.", ".patch_embeddings."),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
    (r"\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.proj\.", ".attention.o_proj."),
    (r"\.attention\.spatial_reduction\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
)
Pixels = Annotated[int, Ge(1), Le(100_000)]


class Config(TypedDict, total=False):
    """The fields of a PVT's config.json that a SegFormer lacks, with their limits."""

    linear_attention: bool
    qkv_bias: bool
    layer_norm_eps: Annotated[float, Gt(0), Le(1e-5)]  # SegFormer's is fixed; a larger one would not fit
    drop_path_rate: Annotated[float, Ge(0), Le(1)]
    image_size: Pixels | Annotated[list[Pixels], Len(2, 2)]  # not used: every size works


def translate(
    config: dict[str, Any], tensors: dict[str, Tensor], place: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translates a PVT's config and state dict to those of a SegFormer's encoder.

    Args:
        config: content of its config.json; missing fields have PVT's defaults.
        tensors: of `PvtV2ForImageClassification` (names start with `pvt_v2.`) or `PvtV2Model`. Their shapes
            stay; the loader refuses names that are not an encoder's.
        place: its config.json, for messages.

    Raises:
        WeightsError: an attention that SegFormer does not have, or fields of another type or size.
    """
    validate(
        Config, {key: config[key] for key in Config.__annotations__ if config.get(key) is not None}, place
    )
    for field, expected in (("linear_attention", False), ("qkv_bias", True)):
        if config.get(field) not in (None, expected):
            raise WeightsError(
                f"{place}: {field}: expected {str(expected).lower()}, found {str(not expected).lower()}, "
                f"which is another attention than SegFormer's. {WAY_OUT}"
            )
    fields = {"mlp_ratios": MLP_RATIOS} | {k: v for k, v in config.items() if k not in Config.__annotations__}
    fields["decoder_hidden_size"] = decoder_width(config.get("depths"), config.get("hidden_sizes"))
    prefix = r"pvt_v2\." if any(name.startswith("pvt_v2.") for name in tensors) else ""
    renames = ((rf"^{prefix}encoder\.layers\.", "segformer.stages."), *RENAMES)
    return fields, {rename_key(name, renames): tensor for name, tensor in tensors.items()}
