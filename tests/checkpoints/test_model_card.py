"""The model card: text, licence, and metadata for the hub."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from nailseg.checkpoints import model_folder
from nailseg.checkpoints.model_card import render_model_card
from nailseg.models.pretrained import NO_LICENCE
from nailseg.models.segformer import SegFormer


@pytest.fixture
def network(tiny_folder: Path) -> SegFormer:
    return SegFormer(str(tiny_folder), ["background", "nail"])


def test_card_names_the_licence_of_the_weights(network: SegFormer) -> None:
    network.origin = {"weights": "nvidia/mit-b0", "licence": "non-commercial (NVIDIA)"}
    card = render_model_card("m", model_folder.describe_network(network))
    assert "**non-commercial (NVIDIA)**" in card
    assert "Not tested" in card
    assert ModelCard(card).data.license == "other"


@pytest.mark.parametrize(
    ("licence", "identifier"),
    [("MIT", "mit"), ("Apache-2.0; name the data set", "apache-2.0"), (NO_LICENCE, None)],
)
def test_card_metadata(network: SegFormer, licence: str, identifier: str | None) -> None:
    metrics = {"n_images": 3, "dice_nail": 0.5, "surface_tolerance": 2.0, "classes": ["background", "nail"]}
    info = model_folder.describe_network(network, metrics=metrics, data={"csv": "dataset.csv"})
    info.origin = {"weights": "x", "licence": licence}
    metadata = ModelCard(render_model_card("m", info, "onnx")).data
    header = metadata.to_dict()
    assert (header.get("license"), header["library_name"]) == (identifier, "onnx")
    (result,) = metadata.eval_results
    assert (result.metric_type, result.metric_value) == ("dice_nail", 0.5)
    assert (result.dataset_name, result.dataset_split) == ("dataset.csv", "test")
