"""Pretrained weights: finds them by folder or hub name and reads their files.

Everything is read as data: JSON, safetensors, `torch.load(weights_only=True)`. No other file is read.
"""

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nailseg.errors import WeightsError

logger = logging.getLogger("nailseg")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
APACHE = "Apache-2.0"
NON_COMMERCIAL = "non-commercial (NVIDIA Source Code License for SegFormer)"
UNKNOWN_LICENCE = "unknown: the folder does not say"
NO_LICENCE = "random initialisation, no licence attached"

PREPROCESSOR_FILE = "preprocessor_config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer before reporting that there is no network."""


@dataclass(frozen=True)
class Source:
    """A folder of weights with the validated content of its JSON files."""

    folder: Path
    config: dict[str, Any]  # content of config.json
    labels: list[str]  # its class names, in index order
    mean: tuple[float, ...]  # per RGB channel, for images in 0..1
    std: tuple[float, ...]  # as `mean`
    origin: dict[str, str]  # `weights` (where they came from) and `licence`


def find_weights(weights: str, model_types: Sequence[str] = ()) -> Source:
    """Finds weights by local folder or hub name (`OpenGVLab/pvt_v2_b0`) and reads everything but the tensors.

    Raises:
        WeightsError: nothing of that name, no network, or a `model_type` that is not asked for (none: any).
    """
    local = Path(weights).expanduser()
    folder = local if local.is_dir() else _download(weights)
    file = folder / "config.json"
    config = read_json(file)
    if config is None:
        raise WeightsError(
            f"{folder}: expected config.json beside {' or '.join(WEIGHT_FILES)}, as save_pretrained "
            f"writes them; found no config.json. Give the folder that has it."
        )
    if model_types and config.get("model_type") not in model_types:
        found = f"found {config.get('model_type')!r}. Give weights of that type, or another --model.name"
        raise WeightsError(
            f"{file}: expected model_type {' or '.join(map(repr, model_types))}, {found} (auto takes every "
            f"segmentation model of transformers)."
        )
    if config.get("num_channels", 3) != 3:
        raise WeightsError(f"{file}: expected 3 channels, found {config['num_channels']}.")
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers' default
    if not isinstance(labels, dict) or set(labels) != {str(index) for index in range(len(labels))}:
        raise WeightsError(f"{file}: expected id2label to name classes 0, 1, 2 …, found {labels}.")
    names = [str(labels[str(index)]) for index in range(len(labels))]
    mean, std = _read_normalization(folder / PREPROCESSOR_FILE)
    return Source(folder, config, names, mean, std, _find_origin(weights, config, folder))


def are_default_labels(labels: list[str]) -> bool:
    """Whether the labels are LABEL_0, LABEL_1, …, which transformers writes for classes without names."""
    return labels == [f"LABEL_{index}" for index in range(len(labels))]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads a folder's state dict to the CPU, as float32; raises `WeightsError` as `load_plain`."""
    path = weight_file(folder)
    if path is None:
        raise WeightsError(
            f"{folder}: expected {' or '.join(WEIGHT_FILES)}, found neither. Give the folder that has one."
        )
    return check_tensors(load_plain(path), path)


def check_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns the content of a file as float32 tensors by name; raises `WeightsError` for other content."""
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise WeightsError(f"{path}: expected a state dict (names to tensors), found something else.")
    return {str(name): t.float() if t.is_floating_point() else t for name, t in content.items()}


def load_plain(path: Path) -> Any:
    """Loads a file of safetensors or torch.save to the CPU, without executing code in it.

    Raises:
        WeightsError: a damaged file, another format, or content that would execute code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            # torch.save does not compress: what would inflate was made by someone else, to fill the memory
            if (
                any(e.compress_type for e in entries)
                or sum(e.file_size for e in entries) > path.stat().st_size
            ):
                raise ValueError("a compressed archive, which torch does not write")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile files cause many kinds
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(". ")
        if (
            isinstance(error, pickle.UnpicklingError) or "weights_only" in reason
        ):  # torch's text advises to load it without protection
            global_name = re.search(r"GLOBAL ([\w.]+)", str(error))
            reason = f"an object ({global_name[1]})" if global_name else "something else, or a damaged one"
        raise WeightsError(
            f"{path}: expected a file with tensors and plain values only, found {reason}. "
            "Download or save it again."
        ) from error


def warn_if_non_commercial(origin: dict[str, str]) -> None:
    """Logs one line for weights with a non-commercial licence."""
    if origin.get("licence", "").startswith("non-commercial"):
        message = "%s: non-commercial licence (NVIDIA); what is trained from these weights inherits it."
        logger.warning(message, origin["weights"])


def weight_file(folder: Path) -> Path | None:
    """Returns the folder's file of weights, or None."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def _download(name: str) -> Path:
    """Returns the folder of a hub model in the Hugging Face cache; downloads missing files."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise WeightsError(
            f"weights {name!r}: expected a folder, a hub name such as 'OpenGVLab/pvt_v2_b0', or b0-random "
            f"… b5-random (another --model.name has other names); found no such folder (in {Path.cwd()})."
        )
    from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError

    config = try_to_load_from_cache(name, "config.json", constants.HF_HUB_CACHE)
    cached = Path(config).parent if isinstance(config, str) else None
    if cached and not weight_file(cached):
        cached = None  # an interrupted download
    # None: it is unknown whether the model has such a file
    preprocessor = try_to_load_from_cache(name, PREPROCESSOR_FILE, constants.HF_HUB_CACHE)
    if cached and preprocessor is not None:
        return cached
    try:
        # this request comes first because it has a time-out and is not repeated, unlike snapshot_download's
        siblings = HfApi().model_info(name, timeout=HUB_TIMEOUT).siblings or ()
        available = {sibling.rfilename for sibling in siblings}
        weights = [file for file in WEIGHT_FILES if file in available][:1]  # both hold the same tensors
        wanted = [*sorted(available & {"config.json", PREPROCESSOR_FILE}), *weights]
        if wanted:
            return Path(snapshot_download(name, allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"weights {name!r}: neither a folder here (looked from {Path.cwd()}) nor a public model on the "
            f"hub. Check the spelling; b0-random … b5-random are random weights."
        ) from error
    except Exception as error:  # which errors mean "no network" changes with the hub library's HTTP client
        if cached:  # transformers' from_pretrained downloads no preprocessor file
            problem = "the cache has no preprocessor_config.json and the hub cannot be reached"
            logger.warning("%s: %s; using ImageNet's mean and standard deviation", name, problem)
            return cached
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise WeightsError(
            f"weights {name!r}: not a folder here, not in the Hugging Face cache ({constants.HF_HUB_CACHE}), "
            f"and the hub cannot be reached ({reason}). Without network: download the model elsewhere "
            f"(`hf download {name} --local-dir FOLDER`) and give the folder, or bring a filled cache and "
            f"point HF_HOME at it, or use 'b0-random' … 'b5-random': random weights."
        ) from error
    raise WeightsError(
        f"weights {name!r}: that model on the hub has none of config.json, {', '.join(WEIGHT_FILES)}."
    )


def _find_origin(weights: str, config: dict[str, Any], folder: Path) -> dict[str, str]:
    source = weights
    if folder == Path(weights).expanduser():  # not of the hub
        recorded = (read_json(folder / "nailseg.json") or {}).get("origin")
        if isinstance(recorded, dict):
            return {str(key): str(value) for key, value in recorded.items()}
        source = str(config.get("_name_or_path") or "")
    for start, licence in (("nvidia/", NON_COMMERCIAL), ("OpenGVLab/pvt_v2_", APACHE)):
        if source.startswith(start):
            return {"weights": source, "licence": licence}
    return {"weights": weights, "licence": UNKNOWN_LICENCE}


def _read_normalization(file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    preprocessor = read_json(file) or {}
    mean = preprocessor.get("image_mean") or IMAGENET_MEAN
    std = preprocessor.get("image_std") or IMAGENET_STD
    if not preprocessor.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    lists = all(isinstance(values, list | tuple) and len(values) == 3 for values in (mean, std))
    if not lists or not all(isinstance(x, int | float) for x in (*mean, *std)) or min(std) <= 0:
        raise WeightsError(
            f"{file}: expected three means and three positive standard deviations, found image_mean "
            f"{mean} and image_std {std}. Correct the file."
        )
    # a processor that does not rescale by 1/255 has its mean in other units; here images are in 0..1
    scale = preprocessor.get("rescale_factor", 1 / 255) if preprocessor.get("do_rescale", True) else 1.0
    return tuple(x / (255 * scale) for x in mean), tuple(x / (255 * scale) for x in std)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, None without the file; raises `WeightsError` for other content."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # neither text nor JSON
        raise WeightsError(f"{path}: expected JSON, found {error}. Download or save it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object, found a {type(content).__name__}.")
    return content
