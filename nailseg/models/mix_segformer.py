"""`MixTransformerSegFormer` as a `Network`, with transformers' weights and model folders."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import SegformerForSemanticSegmentation

from nailseg.errors import WeightsError
from nailseg.models.loading import rename_key
from nailseg.models.mix_transformer import AllMLPDecoder, MixTransformer, MixTransformerSegFormer
from nailseg.models.segformer import SegFormer, convert_to_channels_last

# transformers' names of the arguments of `MixTransformer` and `AllMLPDecoder`, in order
ENCODER_FIELDS = ("depths", "hidden_sizes", "num_attention_heads", "sr_ratios", "mlp_ratios", "patch_sizes",
                  "strides", "drop_path_rate")  # fmt: skip
DECODER_FIELDS = ("hidden_sizes", "decoder_hidden_size", "num_labels", "classifier_dropout_prob")
TRANSFORMERS_NAMES = (
    (r"^encoder\.", "segformer."),
    (r"(stages\.\d+)\.norm\.", r"\1.layer_norm."),
    (r"\.merging\.norm", ".patch_embeddings.layer_norm"),
    (r"\.merging\.", ".patch_embeddings."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attention\.reduce\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.reduce_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.(query|key|value|output)\.", lambda found: f".{found[1][0]}_proj."),
    (r"\.ffn\.dense(\d)\.", r".mlp.fc\1."),
    (r"\.ffn\.depthwise\.", ".mlp.dwconv.dwconv."),
)


def transformers_name(name: str) -> str:
    """Translates a key of `MixTransformerSegFormer`'s state dict to transformers' key.

    Example:
        >>> transformers_name("encoder.stages.0.blocks.1.ffn.dense1.weight")
        'segformer.stages.0.blocks.1.mlp.fc1.weight'
    """
    return rename_key(name, TRANSFORMERS_NAMES)


class MixSegFormer(SegFormer):
    """`MixTransformerSegFormer` (in `paper`) with the arguments, weights and model folders of `SegFormer`."""

    architecture = "mix_transformer"

    def _wrap(self, hf: SegformerForSemanticSegmentation) -> None:
        config = hf.config
        options = (config.hidden_act, config.hidden_dropout_prob, config.attention_probs_dropout_prob)
        if options != ("gelu", 0.0, 0.0) or not config.reshape_last_stage:
            raise WeightsError(
                f"--model.name mix_transformer: expected the paper's network, with GELU and no dropout "
                f"in the encoder; found hidden_act {options[0]}, dropout {options[1]} and {options[2]}, "
                f"reshape_last_stage {config.reshape_last_stage}. Use --model.name segformer."
            )
        encoder = MixTransformer(*(getattr(config, field) for field in ENCODER_FIELDS))
        decoder = AllMLPDecoder(*(getattr(config, field) for field in DECODER_FIELDS))
        self.paper = MixTransformerSegFormer(encoder, decoder)
        tensors = hf.state_dict()
        renamed = {name: tensors.pop(transformers_name(name)) for name in self.paper.state_dict()}
        assert not tensors, f"keys without a counterpart: {sorted(tensors)}"
        self.paper.load_state_dict(renamed, assign=True)
        convert_to_channels_last(self.paper.encoder)
        self.hf_config = config

    @property
    def encoder(self) -> nn.Module:
        return self.paper.encoder

    def save(self, folder: Path) -> None:
        """Writes the same files as transformers' SegFormer."""
        with torch.device("meta"):  # all tensors are replaced: random ones would cost time and memory
            stock = SegformerForSemanticSegmentation(self.hf_config)
        tensors = {transformers_name(name): t for name, t in self.paper.state_dict().items()}
        stock.load_state_dict(tensors, assign=True)
        stock.save_pretrained(folder)

    def logits(self, pixels: Tensor) -> Tensor:
        return self.paper(pixels)
