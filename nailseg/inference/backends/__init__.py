"""What runs a network: torch for model folders and checkpoints, ONNX Runtime and OpenVINO for exported files.

`base` holds the `Backend` protocol, and `as_module` turns an exported file into a torch module for testing.
Only `torch` and `as_module` import torch.
"""

import os
from pathlib import Path

from nailseg.errors import ConfigError, WeightsError
from nailseg.inference.backends.base import Backend
from nailseg.inference.backends.onnx import OnnxBackend
from nailseg.inference.backends.openvino import OpenVinoBackend
from nailseg.model_info import ONNX_FILE, OPENVINO_FILE


def find_exported_file(source: str | Path) -> Path | None:
    """Returns the exported file that a path or its folder stands for; None for any other kind of model."""
    path = Path(source)
    if path.suffix in (".onnx", ".xml"):
        return path
    if (path / "config.json").is_file():  # a transformers folder may contain an ONNX file, too
        return None
    return next((path / name for name in (ONNX_FILE, OPENVINO_FILE) if (path / name).is_file()), None)


def open_exported(source: str | Path, device: str | None = None, threads: int | None = None) -> Backend:
    """Opens an exported file or its folder for inference.

    Args:
        source: As in `find_exported_file`.
        device: None or "cpu".
        threads: As in `segmenter.load`.

    Raises:
        WeightsError: The file does not exist, is damaged, or was not exported by nailseg.
        ConfigError: The runtime is not installed, the device is not the CPU, or `threads` is below 1.
    """
    file = find_exported_file(source) or Path(source)
    if device not in (None, "cpu"):
        expected = f"expected cpu for the exported model {file}. The model folder runs on a GPU."
        raise ConfigError(f"--device {device}: {expected}")
    if not file.is_file():
        raise WeightsError(f"{file}: expected an exported model, found nothing. nailseg export writes them.")
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads: expected 1 or more, found {threads}.")
    environment = os.environ.get("OMP_NUM_THREADS", "")
    threads = threads or int(environment if environment.isdecimal() else 0)
    return OnnxBackend(file, threads) if file.suffix == ".onnx" else OpenVinoBackend(file, threads)
