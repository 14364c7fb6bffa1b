"""The model folder's README.md: what the model is, how good it is, and which licence its weights have."""

from importlib import resources

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from nailseg.metrics.image_counts import LEVEL_TEXT
from nailseg.model_info import ModelInfo

HUB_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
"""The hub's identifiers of the licences that weights most often have."""
NVIDIA_LICENSE = "https://github.com/NVlabs/SegFormer/blob/master/LICENSE"


def render_model_card(name: str, info: ModelInfo, library: str = "transformers") -> str:
    """Renders the README.md of a model folder, or of an export for another library.

    Args:
        name: of the folder.
        info: its facts; the test's numbers become `model-index` metadata, which the hub shows.
        library: `transformers`, `onnx` or `openvino`.
    """
    licence = info.origin.get("licence", "unknown")
    metrics = info.metrics.items()
    measured = {key: v for key, v in metrics if isinstance(v, float) and key != "surface_tolerance"}
    dataset = str(info.data.get("csv", "held-out images"))
    results = [
        EvalResult("image-segmentation", "image-folder", dataset, key, value, dataset_split="test")
        for key, value in measured.items()
    ]
    kinds = {"vit": "plain ViT", "auto": "network of transformers", "efficientnet": "EfficientNet-Lite"}
    kind = kinds.get(info.architecture, "SegFormer")
    card = ModelCard.from_template(
        ModelCardData(
            **_hub_license(licence),
            library_name=library,
            pipeline_tag="image-segmentation",
            tags=[info.architecture, "nailseg"],
            model_name=name if results else None,
            eval_results=results or None,
        ),
        template_str=resources.files(__package__).joinpath("model_card.md.j2").read_text(encoding="utf-8"),
        name=name,
        info=info,
        kind=kind,
        measured=measured,
        interval_level=LEVEL_TEXT,
    )
    return f"{card.content}\n"


def _hub_license(licence: str) -> dict[str, str]:
    """Translates the licence of the weights into the hub's metadata; empty where no identifier fits."""
    if licence.startswith("non-commercial"):
        return {"license": "other", "license_name": "nvidia-segformer", "license_link": NVIDIA_LICENSE}
    identifier = licence.partition(";")[0].strip().lower()
    return {"license": identifier} if identifier in HUB_LICENSES else {}
