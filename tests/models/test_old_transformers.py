"""The model folder in the transformers of 2024, whose SegFormer has other key names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation

import nailseg
from nailseg.checkpoints import model_folder
from nailseg.data.synthetic.sample import draw_hand

pytestmark = pytest.mark.slow
OLD = ["transformers==4.46.3", "tokenizers>=0.20,<0.21", "huggingface_hub>=0.23.2,<1.0"]
SIZE = 384

IN_THE_OLD = """
import json, sys
import numpy, torch, transformers
from PIL import Image
assert transformers.__version__ == "4.46.3", transformers.__version__
folder, out = sys.argv[1:]
kind = transformers.SegformerForSemanticSegmentation
network, report = kind.from_pretrained(folder, output_loading_info=True)
logits = network.eval()(pixel_values=torch.load(out + "/pixels.pt")).logits
torch.save(logits.detach(), out + "/logits.pt")
parts = transformers.pipeline("image-segmentation", model=folder, device="cpu")(Image.open(out + "/hand.png"))
numpy.savez(out + "/parts.npz", **{part["label"]: numpy.asarray(part["mask"]) for part in parts})
print(json.dumps({key: len(found) for key, found in report.items()}))
"""


def test_the_same_logits_and_the_same_mask(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "old")]
    installed = subprocess.run([*pip, *OLD], check=False, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"transformers 4.46 cannot be installed here: {installed.stderr[-200:]}")
    network = model_folder.open_network("nailseg-b0")
    info = model_folder.read_model_info("nailseg-b0")
    folder = model_folder.save_model_folder(tmp_path / "model", network, info)
    pixels = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    torch.save(pixels, tmp_path / "pixels.pt")
    hand = cv2.resize(draw_hand(np.random.default_rng(3), SIZE, 3)[0], (SIZE, SIZE))
    Image.fromarray(hand).save(tmp_path / "hand.png")
    completed = subprocess.run(
        [sys.executable, "-c", IN_THE_OLD, str(folder), str(tmp_path)],
        check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "old")},
    )  # fmt: skip
    assert set(json.loads(completed.stdout.splitlines()[-1]).values()) == {0}, "missing or unexpected keys"
    with torch.no_grad():
        expected = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()(pixel_values=pixels).logits
    assert torch.allclose(torch.load(tmp_path / "logits.pt"), expected, atol=1e-4)
    mask = nailseg.load(folder, "cpu")(hand).mask
    assert mask.any()
    found = np.load(tmp_path / "parts.npz")["nail"] > 0
    assert (found == mask).mean() >= 0.999
