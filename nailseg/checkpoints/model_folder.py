"""The model folder: everything needed to use a model, on this machine or another.

`config.json` and `model.safetensors` are in transformers' format, so plain transformers loads the folder.
`nailseg.json` adds what transformers does not record. A training checkpoint has the same information and is
opened in the same way.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from nailseg.checkpoints.model_card import render_model_card
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.errors import ConfigError, NailsegError, OutputError, WeightsError, WriteError
from nailseg.model_info import INFO_FILE, ModelInfo, is_checkpoint, locate, read_info
from nailseg.models.base import Network
from nailseg.models.loading import quiet_transformers
from nailseg.models.preprocessing import read_preprocessing
from nailseg.models.pretrained import are_default_labels, check_tensors, find_weights, load_plain
from nailseg.models.registry import INTERCHANGEABLE, build_network, network_class
from nailseg.schema import FIX, validate
from nailseg.types import IGNORE_INDEX

CHECKPOINT_KEY = "nailseg"
TOLERANCE = 1e-4
"""Largest difference of the logits on noise, relative to the largest logit; photographs differ less."""


def describe_network(network: Network, **facts: Any) -> ModelInfo:
    """Creates the information about a network; `facts` are further fields of `ModelInfo`."""
    return ModelInfo(
        class_names=list(network.class_names),
        mean=[round(v, 6) for v in network.mean.flatten().tolist()],
        std=[round(v, 6) for v in network.std.flatten().tolist()],
        origin=dict(network.origin),
        architecture=network.architecture,
        **facts,
    )


def unique_path(path: Path) -> Path:
    """Returns the path, or the first of `path-2`, `path-3`, … that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def save_model_folder(folder: str | Path, network: Network, info: ModelInfo) -> Path:
    """Writes a model folder, completely or not at all, verifies it before it gets its name, and returns it.

    Args:
        folder: must not exist.
        network: its weights are written in float32.
        info: for nailseg.json and the model card.

    Raises:
        OutputError: the folder exists, or the disk is full.
        WeightsError: the logits of the written folder differ from the network's.
    """
    with new_folder(folder) as scratch:
        try:
            with quiet_transformers():
                network.save(scratch)
            write_metadata_files(scratch, Path(folder).name, info)
        except (OSError, SafetensorError) as error:  # the latter is safetensors' own kind for a full disk
            found = f"expected to write the model, found: {error}"
            raise WriteError(f"{folder}: {found}. Free some space, or choose another place.") from error
        _verify(scratch, network)
    return Path(folder)


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yields a scratch folder, which becomes `folder` at the end; raises `OutputError` if that exists."""
    folder = Path(folder)
    if folder.exists():
        raise OutputError(f"{folder} exists and is not overwritten. Choose another folder or move it away.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        scratch = Path(name)
        yield scratch
        scratch.chmod(0o755)  # the temporary 0700 and safetensors' 0600 exclude other users
        for file in scratch.iterdir():
            file.chmod(0o644)
        os.rename(scratch, folder)


def write_metadata_files(folder: Path, name: str, info: ModelInfo) -> None:
    """Writes preprocessor_config.json, nailseg.json and the model card; `name` is for the card."""
    preprocessor = {
        "image_processor_type": "SegformerImageProcessor",  # for `pipeline` of plain transformers
        "do_resize": info.resize not in ("crop", "none"),
        "size": _describe_size(info),
        "resample": 2,  # Pillow's number for bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": info.mean,
        "image_std": info.std,
        "do_reduce_labels": False,
    }
    for file, content in (("preprocessor_config.json", preprocessor), (INFO_FILE, dataclasses.asdict(info))):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / file).write_text(f"{text}\n", encoding="utf-8")
    (folder / "README.md").write_text(render_model_card(name, info), encoding="utf-8")


def _describe_size(info: ModelInfo) -> dict[str, int]:
    """The size for transformers' processor, which squashes where nailseg keeps the aspect ratio."""
    if info.resize == "shortest":
        return {"shortest_edge": info.longest_side}
    height, width = (info.image_size,) * 2 if isinstance(info.image_size, int) else info.image_size
    return {"height": height, "width": width}


def _verify(folder: Path, network: Network) -> None:
    """Compares the folder, loaded by plain transformers, with the network it was written from."""
    was_training, device = network.training, network.mean.device
    network.eval().cpu()
    size = (network.fixed_size,) * 2 if network.fixed_size else (64, 96)
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), quiet_transformers():
            expected, found = network.logits(pixels), network.load_reference(folder)(pixels)
    finally:
        network.train(was_training).to(device)
    difference = ((expected - found).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
    if not difference < TOLERANCE:
        raise WeightsError(
            f"{folder}: after reloading, the model's logits differ by {difference:.1e} of the largest "
            f"(expected below {TOLERANCE:.0e}). The folder was removed; the run's checkpoint has the weights."
        )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a training checkpoint, executing no code in it; raises `WeightsError` for any other file."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint. A run keeps its own in runs/NAME/checkpoints/.")
    content = load_plain(path)
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content:
        raise WeightsError(f"{path}: not written by nailseg: it lacks the network's config and class names.")
    validate(dict[Literal["config", "info"], dict[str, Any]], content[CHECKPOINT_KEY], path)
    if not isinstance(content.get("state_dict"), dict) or len(content[CHECKPOINT_KEY]) != 2:
        raise WeightsError(f"{path}: expected a config, info and a state_dict, found a part of them. {FIX}")
    return content


def checkpoint_metadata(network: Network, info: ModelInfo) -> dict[str, Any]:
    """Returns what a checkpoint needs besides its tensors to open without the hub, in plain values."""
    return {"config": network.config_dict(), "info": dataclasses.asdict(info)}


def read_model_info(source: str | Path) -> ModelInfo | None:
    """Reads the information in a checkpoint or model folder; None for other weights."""
    if is_checkpoint(source):
        return ModelInfo.from_dict(read_checkpoint(source)[CHECKPOINT_KEY]["info"], source)
    return read_info(locate(source))


def open_network(
    source: str | Path,
    class_names: Sequence[str] | None = None,
    drop_path: float = 0.1,
    name: str | None = None,
) -> Network:
    """Opens the network of a checkpoint, a model folder, or other weights of its architecture.

    Args:
        source: a checkpoint, a model folder or its run, `nailseg-b0`, a hub name, or `b0-random` …;
            not an exported file, which `nailseg.inference.backends.as_module.open_module` opens.
        class_names: None keeps the source's names. Other names give weights of the hub a new classifier; a
            nailseg model refuses them, because a new classifier discards what it was trained for.
        drop_path: stochastic depth for further training.
        name: the architecture; None takes the source's, or segformer if it names none.

    Raises:
        WeightsError: not found, does not fit, or has other class names.
        ConfigError: the source is of another architecture.

    Example:
        >>> open_network("nailseg-b0").class_names
        ['background', 'nail']
    """
    source = locate(source)
    content = read_checkpoint(source) if is_checkpoint(source) else None
    info = ModelInfo.from_dict(content[CHECKPOINT_KEY]["info"], source) if content else read_info(source)
    recorded = info.architecture if info else "segformer"
    name = name or recorded
    if info:
        require_same_classes(source, info, class_names)
        is_readable = name == recorded or (content is None and {name, recorded} <= INTERCHANGEABLE)
        if not is_readable:
            raise ConfigError(
                f"--model.name {name}: expected weights of that architecture, found {source}, which is "
                f"{recorded}. Give --model.name {recorded}, or other weights."
            )
    if content is None:
        network = build_network(source, class_names, drop_path, name)
        if info and not network.new_head and len(network.class_names) != len(info.class_names):
            raise WeightsError(
                f"{source}: config.json has {len(network.class_names)} classes, {INFO_FILE} names "
                f"{info.class_names}. {FIX}"
            )
        return network
    try:
        network = network_class(name).from_config(
            content[CHECKPOINT_KEY]["config"], info.class_names, drop_path, info.mean, info.std, info.origin
        )
    except NailsegError as error:
        raise WeightsError(f"{source}: {error}") from error
    except Exception as error:  # an inconsistent config causes many kinds
        raise WeightsError(f"{source}: no network can be built from its config ({error!r}). {FIX}") from error
    load_checkpoint_weights(network, content, source)
    return network


def describe_weights(source: str | Path) -> ModelInfo:
    """Describes a folder or hub model of others by its config.json and preprocessor_config.json.

    Raises:
        WeightsError: nothing there, or preprocessing that nailseg cannot do.
    """
    found, segformer = find_weights(str(source)), network_class("segformer")
    preprocessing = read_preprocessing(found.folder)
    info = ModelInfo(
        class_names=found.labels,
        image_size=preprocessing.image_size,
        resize=preprocessing.resize,
        mean=list(found.mean),
        std=list(found.std),
        origin=found.origin,
        architecture="segformer" if found.config.get("model_type") in segformer.model_types else "auto",
    )
    if preprocessing.reduce_labels:
        pairs = ((0, IGNORE_INDEX), *((index + 1, index) for index in range(len(found.labels))))
        info.mask_values = MaskEncoding(pairs, tuple(found.labels)).to_dict()
    return info


def require_same_classes(source: str | Path, info: ModelInfo, class_names: Sequence[str] | None) -> None:
    """Raises `WeightsError` for other names than the model's; None and default labels (LABEL_0 …) pass."""
    if class_names and list(class_names) != info.class_names and not are_default_labels(info.class_names):
        raise WeightsError(
            f"{source} was trained for the classes {info.class_names}, found {list(class_names)}. Give the "
            f"model's own classes (--data.classes), or start from other weights."
        )


def require_trained(network: Network, source: str | Path) -> None:
    """Raises `WeightsError` for a network whose classifier is new and untrained."""
    if network.new_head:
        raise WeightsError(
            f"{source}: expected a trained classifier for {network.class_names}, found weights without one. "
            f"Fine-tune them first (nailseg fit), then give runs/NAME/model."
        )


def load_checkpoint_weights(network: Network, content: dict[str, Any], source: str | Path) -> None:
    """Loads a checkpoint's weights (averaged ones, if any); raises `WeightsError` if they do not fit."""
    prefix = "network."
    state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if str(k).startswith(prefix)}
    check_tensors(state, Path(source))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{source}: its weights do not fit its own config. {error}") from error
    network.new_head = False
