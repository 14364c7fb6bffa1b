"""Converts weights of NVlabs/SegFormer, mmsegmentation and PVT v2 (its encoders) to a model folder.

The architecture follows from the tensors' shapes. Two naming schemes are supported: that of the paper's code,
which PVT v2's authors use too (`block1.0.attn.kv`), and mmsegmentation's
(`layers.0.1.0.attn.attn.in_proj_weight`). mmsegmentation's decode head is a different network (batch norm and
ReLU after every scale's 1x1 convolution), so only its encoder can be converted. The encoder's norms have an
epsilon of 1e-6 in the authors' code and of 1e-5 in transformers.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError, WeightsError, shorten_list
from nailseg.models import pvt
from nailseg.models.loading import decoder_width, quiet_transformers, rename_key
from nailseg.models.mix_transformer import ARCHITECTURES
from nailseg.models.pretrained import (
    APACHE,
    NON_COMMERCIAL,
    check_tensors,
    load_plain,
    warn_if_non_commercial,
)
from nailseg.models.segformer import SegFormer
from nailseg.types import split_class_names

# parts of a stage: NVlabs names them and counts stages from 1, mmsegmentation counts both from 0
NVLABS = {"patch_embed": "patch_embeddings", "block": "blocks", "norm": "layer_norm"}
MMSEG = {"0": "patch_embeddings", "1": "blocks", "2": "layer_norm"}
RENAMES = (
    (r"^module\.", ""),
    (r"^(backbone\.)?(?=patch_embed\d|block\d|norm\d|layers\.\d)", "segformer."),
    (r"(?<=^segformer\.)(patch_embed|block|norm)(\d)\.", lambda m: f"stages.{int(m[2]) - 1}.{NVLABS[m[1]]}."),
    (r"(?<=^segformer\.)layers\.(\d)\.([012])\.", lambda m: f"stages.{m[1]}.{MMSEG[m[2]]}."),
    (r"\.patch_embeddings\.projection\.", ".patch_embeddings.proj."),
    (r"\.patch_embeddings\.norm\.", ".patch_embeddings.layer_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.attn\.in_proj_", ".attention.qkv_proj."),
    (r"\.attn\.(q|kv)\.", r".attention.\1_proj."),
    (r"\.attn\.(attn\.out_proj|proj)\.", ".attention.o_proj."),
    (r"\.attn\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attn\.norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.ffn\.layers\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.dwconv.dwconv."),
    (r"\.ffn\.layers\.4\.", ".mlp.fc2."),
    (r"^(decode_head)\.linear_c(\d)\.", lambda m: f"{m[1]}.linear_projections.{int(m[2]) - 1}."),
    (r"^(decode_head)\.linear_fuse\.conv\.", r"\1.linear_fuse."),
    (r"^(decode_head)\.linear_fuse\.bn\.", r"\1.batch_norm."),
    (r"^(decode_head)\.linear_pred\.", r"\1.classifier."),
)
MMSEG_HEAD = ("decode_head.convs.", "decode_head.fusion_conv.")
UNUSED = ("decode_head.conv_seg.", "head.")
"""The paper's code inherits an unused classifier; encoder files have the classifier of ImageNet."""


def convert(
    file: str | Path,
    folder: str | Path,
    /,
    *,
    classes: Sequence[str] | None = None,
    encoder: bool = False,
    licence: str | None = None,
) -> str:
    """Converts a file of weights to a model folder.

    Args:
        file: File of a SegFormer's weights, or its encoder's: a state dict, or a dict with state_dict.
        folder: New folder for the model.
        classes: Class names in index order; without them, whoever uses the weights may give any.
        encoder: Convert the encoder alone; fine-tuning starts with a new decode head.
        licence: Licence of the weights. By default Apache-2.0 for PVT v2, which the MLPs' ratios tell (8, 8,
            4, 4), and NVIDIA's non-commercial licence for a Mix Transformer (4, 4, 4, 4).

    Raises:
        WeightsError: A file whose tensors are not exactly those of a SegFormer.
        ConfigError: Another number of names than classes; a B5, whose origin the file does not show, without
            a licence.
        OutputError: The folder exists.
    """
    classes = classes and split_class_names(classes)
    tensors = _read(Path(file))
    if encoder:
        tensors = {key: t for key, t in tensors.items() if not key.startswith("decode_head.")}
    if foreign := [key for key in tensors if key.startswith(MMSEG_HEAD)]:
        raise WeightsError(
            f"{file}: expected SegFormer's decode head, found mmsegmentation's ({foreign[0]} …), which is "
            "another network. Convert the encoder alone with --encoder and fine-tune it, or convert weights "
            "of the paper's own code."
        )
    renamed = _rename(tensors)
    has_head = "decode_head.classifier.weight" in renamed
    try:
        config = _read_config(renamed, has_head)
        count = len(renamed["decode_head.classifier.weight"]) if has_head else 2
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{file}: expected SegFormer's tensors under the names of NVlabs/SegFormer or mmsegmentation, "
            f"found {shorten_list(sorted(tensors))} ({type(error).__name__}: {error})."
        ) from error
    if classes and (not has_head or len(classes) != count):
        found = f"{count} in {file}" if has_head else f"none in {file}, which is an encoder"
        raise ConfigError(f"--classes: expected as many names as there are classes, {found}; got {classes}.")
    licence = licence or _find_licence(file, config)
    network = SegFormer.from_config(config, classes or [f"LABEL_{index}" for index in range(count)])
    expected = {key for key in network.hf.state_dict() if has_head or key.startswith("segformer.")}
    if renamed.keys() != expected:
        extra, missing = sorted(renamed.keys() - expected), sorted(expected - renamed.keys())
        found = f"unexpected: {shorten_list(extra)}; missing: {shorten_list(missing)}"
        raise WeightsError(f"{file}: expected exactly the tensors of a SegFormer; {found}.")
    try:
        network.hf.load_state_dict(renamed, strict=False)  # an encoder lacks the head; the keys are checked
    except RuntimeError as error:
        raise WeightsError(f"{file}: expected tensors that fit each other. {error}") from error
    network.origin, network.new_head = {"weights": Path(file).name, "licence": licence}, False
    info = model_folder.describe_network(network, data={"converted from": Path(file).name})
    if has_head:
        model_folder.save_model_folder(folder, network, info)
    else:
        with model_folder.new_folder(folder) as scratch, quiet_transformers():
            network.hf.segformer.save_pretrained(scratch)
            model_folder.write_metadata_files(scratch, Path(folder).name, info)
    warn_if_non_commercial(network.origin)
    kind = f"SegFormer with {count} classes" if has_head else "SegFormer's encoder, to fine-tune from"
    return f"{kind}: depths {config['depths']}, widths {config['hidden_sizes']}. Written to {folder}"


def _find_licence(file: str | Path, config: dict[str, Any]) -> str:
    """The licence of an encoder that its shapes tell; raises `ConfigError` for a B5."""
    if config["mlp_ratios"] == pvt.MLP_RATIOS:
        return APACHE
    if config["depths"] == list(ARCHITECTURES["b5"][0]):
        raise ConfigError(
            f"{file}: expected a licence, because NVIDIA's MiT-B5 and the authors' PVTv2-B5 have the same "
            f"tensors; found none. Give --licence '{NON_COMMERCIAL}' or --licence {APACHE}."
        )
    return NON_COMMERCIAL


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError(f"{file}: expected a file of weights, found none. Give the .pth file.")
    with file.open("rb") as opened:
        if not opened.read(2).startswith((b"PK", b"\x80")):  # zip files and pickles
            found = "expected a file written by torch.save, found another format"
            raise WeightsError(f"{file}: {found}. Give the .pth file.")
    try:
        content = load_plain(file)
    except WeightsError as error:
        plain = "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'plain.pth')"
        raise WeightsError(f"{error} If you trust it: {plain}, and convert that.") from error
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    tensors = check_tensors(content, file)
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(UNUSED)}


def _rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives tensors transformers' keys, splits joined projections, and makes 1x1 kernels matrices."""
    renamed = {}
    for key, value in tensors.items():
        name = rename_key(key, RENAMES)
        tensor = value.flatten(1) if ".mlp.fc" in name and value.ndim == 4 else value
        if joined := re.search(r"\.(q?kv)_proj\.", name):
            for letter, part in zip(joined[1], tensor.chunk(len(joined[1])), strict=True):
                renamed[name.replace(joined[0], f".{letter}_proj.")] = part
        else:
            renamed[name] = tensor
    return renamed


def _read_config(tensors: dict[str, Tensor], has_head: bool) -> dict[str, Any]:
    """Derives the network's config from the shapes of its tensors."""
    starts = (re.match(r"segformer\.stages\.\d+\.", name) for name in tensors)
    stages = sorted({start[0] for start in starts if start})
    kernels = [tensors[f"{stage}patch_embeddings.proj.weight"].shape for stage in stages]
    widths, patches = [k[0] for k in kernels], [k[2] for k in kernels]
    blocks = [{name.split(".")[4] for name in tensors if name.startswith(f"{s}blocks.")} for s in stages]
    reduction = "blocks.0.attention.sequence_reduction.sequence_reduction.weight"
    inner = [len(tensors[f"{stage}blocks.0.mlp.fc1.weight"]) for stage in stages]
    depths, first = [len(names) for names in blocks], widths[0]
    projection = "decode_head.linear_projections.0.proj.weight"
    return {
        "num_encoder_blocks": len(stages),
        "depths": depths,
        "hidden_sizes": widths,
        # the shapes do not show the number of heads; the paper's heads all have the first stage's width
        "num_attention_heads": [width // first for width in widths],
        "sr_ratios": [tensors[s + reduction].shape[2] if s + reduction in tensors else 1 for s in stages],
        "mlp_ratios": [wide // width for wide, width in zip(inner, widths, strict=True)],
        "patch_sizes": patches,
        "strides": [(patch + 1) // 2 for patch in patches],  # 7 / 4 and 3 / 2
        "decoder_hidden_size": len(tensors[projection]) if has_head else decoder_width(depths, widths),
    }
