"""Tiny model folders that tests may change, and comparisons of networks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import SegformerForSemanticSegmentation

LEGACY = Path(__file__).parents[3] / "shared" / "legacy"
needs_legacy = pytest.mark.skipif(not LEGACY.is_dir(), reason="../shared/legacy is not here")

# the names that hub checkpoints have, as they were before transformers 5
OLD_NAMES = [
    (r"stages\.(\d+)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"stages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"stages\.(\d+)\.layer_norm\.", r"encoder.layer_norm.\1."),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc(\d)", r"mlp.dense\1"),
    (r"layernorm_before", "layer_norm_1"),
    (r"layernorm_after", "layer_norm_2"),
    (r"linear_projections", "linear_c"),
]


def old_name(name: str) -> str:
    for new, old in OLD_NAMES:
        name = re.sub(new, old, name)
    return name


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny network that a test may change, with transformers 5's key names."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_folder, copy)
    network = SegformerForSemanticSegmentation.from_pretrained(tiny_folder)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, copy / "model.safetensors")
    return copy


@pytest.fixture
def edit(folder: Path) -> Callable[..., Path]:
    """Rewrites the tensors of `folder` through a function of name -> tensor dict."""

    def apply(change: Callable[[dict], dict]) -> Path:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
        return folder

    return apply


def images(*size: int) -> torch.Tensor:
    size = size or (64, 64)
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def same_logits(a: nn.Module, b: nn.Module) -> bool:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x, y = a.eval()(pixels).logits, b.eval()(pixels).logits
    return x.shape == y.shape and bool((x - y).abs().max() <= 1e-5 * y.abs().max())
