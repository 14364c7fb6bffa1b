"""OpenVINO as a backend; torch and transformers are not needed."""

import collections
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from nailseg.errors import WeightsError
from nailseg.inference.backends.base import ExportedBackend, import_runtime, last_line
from nailseg.model_info import INFO_FILE

STATIC_AFTER = 3  # occurrences of a shape after which it gets a static graph
MAX_COUNTED_SHAPES = 1000  # beyond it, counting starts again: the images of a server may all differ in size
MAX_STATIC_GRAPHS = 4
MAX_STATIC_PIXELS = 1_000_000  # of a batch; for larger ones a static graph was no faster, or slower


class OpenVinoBackend(ExportedBackend):
    """Runs `model.xml` in OpenVINO on the CPU; see `open_exported`.

    A static graph (known shape) is faster than a dynamic one but has to be compiled: only shapes that occur
    often get one.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        self.core = import_runtime("openvino").Core()
        info_file = file.parent / INFO_FILE
        metadata = info_file.read_text(encoding="utf-8") if info_file.is_file() else ""
        super().__init__(file, metadata, INFO_FILE)
        # without the hint, OpenVINO computes in bfloat16 wherever the processor can, which nobody measured;
        # fp16 is only how the weights are stored
        precision = "bf16" if json.loads(metadata).get("precision") == "bf16" else "f32"
        self.hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
        if threads:
            self.hints["INFERENCE_NUM_THREADS"] = threads
        try:
            self.graph = self.core.read_model(file)
            self.dynamic = self.core.compile_model(self.graph, "CPU", self.hints)
        except RuntimeError as error:
            message = f"{file}: cannot be opened as an OpenVINO model ({last_line(error)})."
            raise WeightsError(message) from error
        self.shape_counts: collections.Counter[tuple[int, ...]] = collections.Counter()
        self.static: dict[tuple[int, ...], Any] = {}
        self.lock, self.local = threading.Lock(), threading.local()

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        model = self._select_model(images.shape)
        requests = self.local.__dict__.setdefault("requests", {})  # requests are not thread-safe
        if model not in requests:
            requests[model] = model.create_infer_request()
        outputs = requests[model].infer({"image": images})
        return outputs["mask"], outputs["probability"]

    def _select_model(self, shape: tuple[int, ...]) -> Any:
        """Returns the static model for a shape if there is one, else the dynamic one."""
        with self.lock:
            if len(self.shape_counts) >= MAX_COUNTED_SHAPES:
                self.shape_counts.clear()
            self.shape_counts[shape] += 1
            is_frequent = self.shape_counts[shape] == STATIC_AFTER and shape not in self.static
            is_allowed = len(self.static) < MAX_STATIC_GRAPHS and math.prod(shape) <= 3 * MAX_STATIC_PIXELS
        if is_frequent and is_allowed:  # outside the lock: other threads continue with the dynamic model
            graph = self.graph.clone()
            graph.reshape(shape)
            self.static[shape] = self.core.compile_model(graph, "CPU", self.hints)
        return self.static.get(shape, self.dynamic)
