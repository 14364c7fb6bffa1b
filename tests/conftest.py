"""What many tests share: a network small enough to train within a test."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],  # heads must divide widths
    "decoder_hidden_size": 16,
}
"""53,450 parameters with two classes, 0.03 s a training step at 64x64."""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it: the tiny network, background and nail, fixed random weights."""
    import torch

    from nailseg.models.segformer import SegFormer

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SegFormer.from_config(TINY, ["background", "nail"])
    network.hf.save_pretrained(folder)
    return folder
