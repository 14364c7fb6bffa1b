"""`mix_transformer` behind the interface of all architectures, with transformers' weights and folders."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import SegformerForSemanticSegmentation

from nailseg.errors import WeightsError
from nailseg.models.mix_transformer import AllMLPDecoder, MixTransformer, MixTransformerSegFormer
from nailseg.models.segformer import SegFormer, convert_to_channels_last

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
    """transformers' name of a tensor of `MixTransformerSegFormer`'s state dict; the head's are the same."""
    for ours, theirs in TRANSFORMERS_NAMES:
        name = re.sub(ours, theirs, name)
    return name


class MixSegFormer(SegFormer):
    """`MixTransformerSegFormer` where a SegFormer is expected: same arguments, same weights, same folders.

    Attributes:
        paper: the network.
    """

    architecture = "mix_transformer"

    def _adopt(self, hf: SegformerForSemanticSegmentation) -> None:
        config = hf.config
        asked = (config.hidden_act, config.hidden_dropout_prob, config.attention_probs_dropout_prob)
        if asked != ("gelu", 0.0, 0.0) or not config.reshape_last_stage:
            raise WeightsError(
                f"--model.name mix_transformer is the paper's network, with GELU and no "
                f"dropout in the encoder; found hidden_act {asked[0]}, dropout {asked[1]} and {asked[2]}, "
                f"reshape_last_stage {config.reshape_last_stage}. Use --model.name segformer."
            )
        self.paper = MixTransformerSegFormer(
            MixTransformer(
                config.depths,
                config.hidden_sizes,
                config.num_attention_heads,
                config.sr_ratios,
                config.mlp_ratios,
                config.patch_sizes,
                config.strides,
                config.drop_path_rate,
            ),
            AllMLPDecoder(
                config.hidden_sizes,
                config.decoder_hidden_size,
                config.num_labels,
                config.classifier_dropout_prob,
            ),
        )
        tensors = hf.state_dict()
        # strict on our side, empty on theirs: no tensor is left over or left out
        ours = {name: tensors.pop(transformers_name(name)) for name in self.paper.state_dict()}
        assert not tensors, f"no place for {sorted(tensors)}"
        self.paper.load_state_dict(ours, assign=True)
        convert_to_channels_last(self.paper.encoder)
        self.hf_config = config

    @property
    def encoder(self) -> nn.Module:
        """See `Network`."""
        return self.paper.encoder

    def save(self, folder: Path) -> None:
        """Writes what transformers' own SegFormer writes."""
        with torch.device("meta"):  # its tensors are replaced: no memory, no time for random ones
            stock = SegformerForSemanticSegmentation(self.hf_config)
        tensors = {transformers_name(name): t for name, t in self.paper.state_dict().items()}
        stock.load_state_dict(tensors, assign=True)
        stock.save_pretrained(folder)

    def logits(self, pixels: Tensor) -> Tensor:
        """See `Network`."""
        return self.paper(pixels)
