"""What goes into an exported file: image in, mask and probability out, as one graph."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nailseg.export import resampling
from nailseg.export.rewrites import frozen
from nailseg.imaging import geometry
from nailseg.imaging.geometry import MULTIPLE
from nailseg.inference.backends.base import import_runtime
from nailseg.inference.backends.onnx import METADATA_KEY
from nailseg.metrics.confusion import class_index
from nailseg.model_info import INFO_FILE, ONNX_FILE, OPENVINO_FILE
from nailseg.models.loading import quiet_transformers

if TYPE_CHECKING:
    from pathlib import Path

    from nailseg.model_info import ModelInfo
    from nailseg.models.base import Network

OPSET = 20  # the first with GELU as one node


class Fit(nn.Module):
    """Image uint8 (N, 3, H, W) to the network's input, normalised float32 (N, 3, H', W')."""

    def __init__(self, network: Network, info: ModelInfo) -> None:
        super().__init__()
        self.size, self.resize = info.image_size, info.resize
        self.mean, self.std = 255 * network.mean, 255 * network.std

    def forward(self, image: Tensor) -> Tensor:
        valid = geometry.network_size(*image.shape[-2:], self.size, self.resize)
        fitted = geometry.pad(resampling.resize_antialiased(image.float(), valid))
        return (fitted - self.mean) / self.std


class Body(nn.Module):
    """The network's input to its logits (N, C, h, w), at its own output size."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = frozen(network)

    def forward(self, fitted: Tensor) -> Tensor:
        return self.network.logits(fitted)


class Restore(nn.Module):
    """Those logits to mask uint8 (N, H, W) and probability float32 (N, C, H, W) at the image's size.

    Enlarging to the network's input, cropping and resizing to the image are linear: one matrix an axis does
    all three. Of two classes it is enough to follow how far the second is ahead.
    """

    def __init__(self, info: ModelInfo) -> None:
        super().__init__()
        self.size, self.resize, self.binary = info.image_size, info.resize, len(info.class_names) == 2
        self.signs = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)

    def forward(self, logits: Tensor, fitted: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        target = image.shape[-2:]
        valid = geometry.network_size(*target, self.size, self.resize)
        if self.binary:
            logits = logits[:, 1:] - logits[:, :1]
        rows, columns = (
            resampling.bilinear_matrix(reached, kept, logits.device)
            @ resampling.bilinear_matrix(given, size, logits.device)[:kept]
            for reached, kept, given, size in zip(
                target, valid, fitted.shape[-2:], logits.shape[-2:], strict=True
            )
        )
        logits = rows @ logits @ columns.T
        if self.binary:
            # of equal ones the first class, as argmax has it
            return (logits[:, 0] > 0).to(torch.uint8), (logits * self.signs).sigmoid()
        return class_index(logits), logits.softmax(1)


class Deployed(nn.Module):
    """A network with everything around it: image in; mask and probability out, as `Restore` gives them.

    Args:
        network: it is copied.
        info: its image size, resize rule and class names.
    """

    def __init__(self, network: Network, info: ModelInfo) -> None:
        super().__init__()
        self.fit, self.body, self.restore = Fit(network, info), Body(network), Restore(info)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fitted = self.fit(image)
        return self.restore(self.body(fitted), fitted, image)


def metadata(info: ModelInfo) -> dict[str, str]:
    """What travels in an exported file; `nailseg` is the content of nailseg.json."""
    return {
        METADATA_KEY: json.dumps(dataclasses.asdict(info), ensure_ascii=False),
        "class_names": ", ".join(info.class_names),
        "licence": info.origin.get("licence", "unknown"),
        "input": "image: uint8 (N, 3, H, W), RGB, any size",
        "output": "mask: uint8 (N, H, W), class index; probability: float32 (N, C, H, W), 0 to 1",
    }


def write_onnx(folder: Path, network: Network, info: ModelInfo, precision: str = "fp32") -> None:
    """Writes model.onnx: `image` in, `mask` and `probability` out, all sizes free.

    Three parts are exported and then joined: by itself, the network's input is 32 times any number; within
    the whole, it would be an expression of the image's size that torch's solver carries through every layer
    (three times the work).

    Args:
        folder: where to write.
        network: as `Deployed` takes it.
        info: its image size and resize rule, and what goes into the metadata.
        precision: fp32; fp16 stores weights so, the runtime computes in float32 all the same.

    Raises:
        ConfigError: the export extra is not installed.
    """
    onnx = import_runtime("onnx")
    import_runtime("onnxscript")
    whole = Deployed(network, info).eval()
    any_size = torch.export.Dim.DYNAMIC
    picture = torch.zeros(2, 3, 97, 161, dtype=torch.uint8)  # no two sizes alike: none is taken for another
    fitted = whole.fit(picture)
    logits = whole.body(fitted)
    free = inside = {0: any_size, 2: any_size, 3: any_size}
    multiples = {
        0: torch.export.Dim("batch", min=1),
        2: MULTIPLE * torch.export.Dim("rows", min=1),
        3: MULTIPLE * torch.export.Dim("columns", min=1),
    }
    if info.resize == "squash":  # the network sees one size only
        multiples = inside = {0: any_size}
    parts = {
        "fit": (whole.fit, (picture,), (free,), ["image"], ["fitted"]),
        "body": (whole.body, (fitted,), (multiples,), ["fitted"], ["logits"]),
        "restore": (
            whole.restore,
            (logits, fitted, picture),
            (inside, multiples, free),
            ["logits", "fitted", "image"],
            ["mask", "probability"],
        ),
    }
    models = [
        onnx.compose.add_prefix(_export(*part), f"{name}/", rename_inputs=False, rename_outputs=False)
        for name, part in parts.items()
    ]
    joined = models[0]
    for model in models[1:]:
        joined.graph.node.extend(model.graph.node)
        joined.graph.initializer.extend(model.graph.initializer)
    classes = logits.shape[1]
    describe = onnx.helper.make_tensor_value_info
    kinds = onnx.TensorProto
    ends = [
        describe("image", kinds.UINT8, ["N", 3, "H", "W"]),
        describe("mask", kinds.UINT8, ["N", "H", "W"]),
        describe("probability", kinds.FLOAT, ["N", classes, "H", "W"]),
    ]
    graph = onnx.helper.make_graph(joined.graph.node, "nailseg", ends[:1], ends[1:], joined.graph.initializer)
    if precision == "fp16":
        _halve(graph, onnx)
    # the exporter leaves stack traces, with paths of this machine
    for part in (*graph.node, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    model = onnx.helper.make_model(
        graph, opset_imports=joined.opset_import, ir_version=joined.ir_version, producer_name="nailseg"
    )
    onnx.helper.set_model_props(model, metadata(info))
    onnx.checker.check_model(model)
    onnx.save(model, folder / ONNX_FILE)


def _halve(graph: Any, onnx: Any) -> None:
    """Stores the weights in half precision; runtimes turn them back once, when they open the file."""
    casts = []
    for tensor in graph.initializer:
        # a scale or an epsilon saves nothing, and may lie outside what half precision knows
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= 64:
            name, half = tensor.name, onnx.numpy_helper.to_array(tensor).astype("float16")
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}/half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])  # in the order of use


def _export(
    module: nn.Module, inputs: tuple[Any, ...], sizes: tuple[Any, ...], into: list[str], out: list[str]
) -> Any:
    # it logs, once a call, that torchvision's operators are not there
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # torch calls what it and onnxscript have renamed
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=into,
            output_names=out,
            dynamic_shapes=sizes,
            verbose=False,
        )
    return program.model_proto


def write_openvino(folder: Path, network: Network, info: ModelInfo, precision: str = "fp32") -> None:
    """Writes model.xml, model.bin and nailseg.json, all sizes free.

    Args:
        folder: where to write.
        network: as `Deployed` takes it.
        info: its image size and resize rule, and what goes into the metadata.
        precision: fp32; fp16 stores weights so; bf16 computes so.

    Raises:
        ConfigError: the export extra is not installed.
    """
    openvino = import_runtime("openvino")
    # the tracer asks for every property, and transformers' loss function has something to say about itself
    with torch.no_grad(), quiet_transformers(), warnings.catch_warnings():
        # it warns of every comparison of sizes; the check on other sizes says whether it was right
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # and torch of its tracer, which OpenVINO still calls
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        model = openvino.convert_model(
            Deployed(network, info).eval(),
            # unequal sides and batch, so that no size is taken for another
            example_input=torch.zeros(2, 3, 97, 161, dtype=torch.uint8),
            input=[openvino.PartialShape([-1, 3, -1, -1])],
        )
    model.inputs[0].set_names({"image"})
    for output, name in zip(model.outputs, ("mask", "probability"), strict=True):
        output.set_names({name})
    for key, value in metadata(info).items():
        model.set_rt_info(value, [METADATA_KEY, key])
    openvino.save_model(model, folder / OPENVINO_FILE, compress_to_fp16=precision == "fp16")
    content = dataclasses.asdict(info) | {"precision": precision}
    (folder / INFO_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
