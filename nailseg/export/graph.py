"""The exported graph: uint8 image in, mask and probability out, written as ONNX or OpenVINO."""

import contextlib
import dataclasses
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nailseg.export import resampling
from nailseg.export.rewrites import rewrite_for_export
from nailseg.imaging import geometry
from nailseg.inference.backends.base import import_runtime
from nailseg.inference.backends.onnx import METADATA_KEY
from nailseg.metrics.confusion import class_index
from nailseg.model_info import INFO_FILE, ONNX_FILE, OPENVINO_FILE, ModelInfo
from nailseg.models.base import Network, normalize
from nailseg.models.loading import quiet_transformers

OPSET = 20  # the first with GELU as one node
EXAMPLE_SHAPE = (2, 3, 97, 161)  # no two sizes are equal, so that tracing confuses none


class Preprocess(nn.Module):
    """Image uint8 (N, 3, H, W) to the network's input, normalised float32 (N, 3, H', W')."""

    def __init__(self, network: Network, info: ModelInfo) -> None:
        super().__init__()
        self.size, self.resize = info.image_size, info.resize
        self.mean, self.std = network.mean, network.std

    def forward(self, image: Tensor) -> Tensor:
        valid = geometry.network_size(*image.shape[-2:], self.size, self.resize)
        pixels = image.float()
        if self.resize not in ("crop", "none"):
            pixels = resampling.resize_antialiased(pixels, valid)
        return normalize(geometry.pad(pixels), self.mean, self.std)


class Body(nn.Module):
    """The network's input to its logits (N, C, h, w), at its own output size."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = rewrite_for_export(network)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.logits(pixels)


class Postprocess(nn.Module):
    """Logits to mask uint8 (N, H, W) and probability float32 (N, C, H, W) at the image's size.

    Upsampling to the network's input, cropping and resizing to the image are linear: one matrix per axis does
    all three. For two classes the difference of their logits is enough.
    """

    def __init__(self, info: ModelInfo) -> None:
        super().__init__()
        self.size, self.resize, self.binary = info.image_size, info.resize, len(info.class_names) == 2
        self.signs = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)

    def forward(self, logits: Tensor, pixels: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        target = image.shape[-2:]
        valid = geometry.network_size(*target, self.size, self.resize)
        if self.binary:
            logits = logits[:, 1:] - logits[:, :1]
        sizes = zip(target, valid, pixels.shape[-2:], logits.shape[-2:], strict=True)
        rows, columns = (
            resampling.bilinear_matrix(to, kept, logits.device)
            @ resampling.bilinear_matrix(padded, size, logits.device)[:kept]
            for to, kept, padded, size in sizes
        )
        logits = rows @ logits @ columns.T
        if self.binary:
            # the first class wins a tie, as with argmax
            return (logits[:, 0] > 0).to(torch.uint8), (logits * self.signs).sigmoid()
        return class_index(logits), logits.softmax(1)


class ExportGraph(nn.Module):
    """A copy of a network with pre- and post-processing: image in, mask and probability out."""

    def __init__(self, network: Network, info: ModelInfo) -> None:
        super().__init__()
        self.preprocess, self.body = Preprocess(network, info), Body(network)
        self.postprocess = Postprocess(info)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.preprocess(image)
        return self.postprocess(self.body(pixels), pixels, image)


def metadata(info: ModelInfo) -> dict[str, str]:
    """The metadata of an exported file; `nailseg` holds the content of nailseg.json."""
    size = "any size"
    if info.resize == "crop":
        tiles = f"tiles of {info.image_size} pixels that overlap by {info.overlap:g} of that"
        size = f"not resized: cut larger images into {tiles}, and blend the probabilities"
    return {
        METADATA_KEY: json.dumps(dataclasses.asdict(info), ensure_ascii=False),
        "class_names": ", ".join(info.class_names),
        "licence": info.origin.get("licence", "unknown"),
        "input": f"image: uint8 (N, 3, H, W), RGB, {size}",
        "output": "mask: uint8 (N, H, W), class index; probability: float32 (N, C, H, W), 0 to 1",
    }


def write_onnx(folder: Path, network: Network, info: ModelInfo, precision: str = "fp32") -> None:
    """Writes model.onnx: `image` in, `mask` and `probability` out, all sizes free.

    Three parts are exported and then joined. In a part of its own the network's input is 32 times a free
    number; within one graph it would be an expression of the image's size that torch's solver carries through
    every layer, for three times the work.

    Args:
        folder: where to write.
        network: is copied.
        info: its image size and resize rule, and the metadata.
        precision: fp32, or fp16, which stores the weights so; the runtime computes in float32.

    Raises:
        ConfigError: the export extra is not installed.
    """
    onnx = import_runtime("onnx")
    import_runtime("onnxscript")
    whole = ExportGraph(network, info).eval()
    image = torch.zeros(EXAMPLE_SHAPE, dtype=torch.uint8)
    pixels = whole.preprocess(image)
    logits = whole.body(pixels)
    dynamic, dimension = torch.export.Dim.DYNAMIC, torch.export.Dim
    free = inside = {0: dynamic, 2: dynamic, 3: dynamic}
    multiples = {0: dimension("batch", min=1)}
    rows, columns = dimension("rows", min=1), dimension("columns", min=1)
    multiples |= {2: geometry.MULTIPLE * rows, 3: geometry.MULTIPLE * columns}
    if info.resize == "squash":  # the network has one input size only
        multiples = inside = {0: dynamic}
    examples = {"image": (image, free), "pixels": (pixels, multiples), "logits": (logits, inside)}
    parts = {
        "preprocess": (["image"], ["pixels"]),
        "body": (["pixels"], ["logits"]),
        "postprocess": (["logits", "pixels", "image"], ["mask", "probability"]),
    }
    nodes, initializers = [], []
    for name, (names_in, names_out) in parts.items():
        tensors, sizes = zip(*(examples[each] for each in names_in), strict=True)
        exported = _export(getattr(whole, name), tensors, sizes, names_in, names_out)
        part = onnx.compose.add_prefix(exported, f"{name}/", rename_inputs=False, rename_outputs=False)
        nodes.extend(part.graph.node)
        initializers.extend(part.graph.initializer)
    kinds, tensor = onnx.TensorProto, onnx.helper.make_tensor_value_info
    source = tensor("image", kinds.UINT8, ["N", 3, "H", "W"])
    mask = tensor("mask", kinds.UINT8, ["N", "H", "W"])
    probability = tensor("probability", kinds.FLOAT, ["N", logits.shape[1], "H", "W"])
    graph = onnx.helper.make_graph(nodes, "nailseg", [source], [mask, probability], initializers)
    if precision == "fp16":
        _halve(graph, onnx)
    # the exporter leaves stack traces with this machine's paths
    for item in (*graph.node, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    model = onnx.helper.make_model(
        graph, opset_imports=part.opset_import, ir_version=part.ir_version, producer_name="nailseg"
    )
    onnx.helper.set_model_props(model, metadata(info))
    onnx.checker.check_model(model)
    onnx.save(model, folder / ONNX_FILE)


def _halve(graph: Any, onnx: Any) -> None:
    """Stores the weights in half precision; runtimes convert them back once, when they open the file."""
    casts = []
    for tensor in graph.initializer:
        # a scale or an epsilon saves nothing, and may lie outside the range of half precision
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= 64:
            name, half = tensor.name, onnx.numpy_helper.to_array(tensor).astype("float16")
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}/half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])  # in the order of use


def _export(module: nn.Module, inputs: tuple, sizes: tuple, names_in: list[str], names_out: list[str]) -> Any:
    names = {"input_names": names_in, "output_names": names_out}
    with _quiet_export():
        program = torch.onnx.export(
            module, inputs, dynamo=True, opset_version=OPSET, dynamic_shapes=sizes, verbose=False, **names
        )
    return program.model_proto


@contextlib.contextmanager
def _quiet_export() -> Iterator[None]:
    """Hides what torch, transformers and the converters report in every export."""
    # it logs with every call that torchvision's operators are missing
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # transformers' loss function logs when the tracer reads it, as every property
    with torch.no_grad(), quiet_transformers(), warnings.catch_warnings():
        # deprecated names and the tracer, which onnxscript and OpenVINO still call; every comparison of
        # sizes: the comparison with torch on other sizes is the check
        for category in (FutureWarning, DeprecationWarning, torch.jit.TracerWarning):
            warnings.simplefilter("ignore", category)
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def write_openvino(folder: Path, network: Network, info: ModelInfo, precision: str = "fp32") -> None:
    """Writes model.xml, model.bin and nailseg.json, all sizes free; arguments and errors as `write_onnx`.

    The precision bf16 is what the runtime computes in; fp16 only stores the weights so.
    """
    openvino = import_runtime("openvino")
    with _quiet_export():
        model = openvino.convert_model(
            ExportGraph(network, info).eval(),
            example_input=torch.zeros(EXAMPLE_SHAPE, dtype=torch.uint8),
            input=[openvino.PartialShape([-1, 3, -1, -1])],
        )
    model.inputs[0].set_names({"image"})
    for output, name in zip(model.outputs, ("mask", "probability"), strict=True):
        output.set_names({name})
    for key, value in metadata(info).items():
        model.set_rt_info(value, [METADATA_KEY, key])
    openvino.save_model(model, folder / OPENVINO_FILE, compress_to_fp16=precision == "fp16")
    content = dataclasses.asdict(info) | {"precision": precision}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / INFO_FILE).write_text(f"{text}\n", encoding="utf-8")
