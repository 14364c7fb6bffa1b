"""ONNX Runtime as a backend; torch and transformers are not needed."""

from pathlib import Path

import numpy as np

from nailseg.errors import WeightsError
from nailseg.inference.backends.base import ExportedBackend, import_runtime, last_line

METADATA_KEY = "nailseg"  # in the file's own metadata, of the content of nailseg.json as JSON


class OnnxBackend(ExportedBackend):
    """Runs an ONNX file in ONNX Runtime on the CPU; see `open_exported`."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        ort = import_runtime("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads  # 0: it chooses
        options.log_severity_level = 3  # its warnings concern the graph: users cannot act on them
        try:
            self.session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own exceptions have no common public base
            raise WeightsError(f"{file}: cannot be opened as an ONNX model ({last_line(error)}).") from error
        metadata = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        super().__init__(file, metadata, "its metadata")

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.session.run(["mask", "probability"], {"image": images}))
