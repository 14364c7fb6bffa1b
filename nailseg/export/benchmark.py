"""`nailseg bench`: the latency of one model in each of its forms, on this machine, in one run.

All forms alternate on the same image, so that a drift of the machine slows all of them alike, and each is
compared with transformers' own model. The time is that from a uint8 image to mask and probability.
"""

import contextlib
import copy
import dataclasses
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from nailseg.checkpoints import model_folder
from nailseg.errors import ConfigError
from nailseg.export.exporter import WRITERS, load_images
from nailseg.imaging.figures import COLORS, GREY, new_figure, to_svg
from nailseg.inference.backends import find_exported_file, open_exported
from nailseg.inference.backends.base import Backend, import_runtime, last_line
from nailseg.inference.backends.openvino import STATIC_AFTER
from nailseg.inference.backends.torch import TorchBackend, open_torch
from nailseg.models.loading import quiet_transformers
from nailseg.models.standalone import StandaloneNetwork

log = logging.getLogger("nailseg")

BASELINE = "transformers"
"""transformers' own model with the same pre- and post-processing, eager torch in float32."""

PAUSE = 0.1
"""Seconds between two forms: the threads of the one before keep their cores busy for a while."""

WARM_UP = STATIC_AFTER + 1  # OpenVINO has compiled its static graph by then

FORMATS = {"median": "{:.1f} ms", "p95": "{:.1f} ms", "throughput": "{:.1f}/s", "ratio": "{:.2f}x"}
FORMATS |= {"agreement": "{:.2%}", "memory": "{:.0f} MiB", "start": "{:.1f} s", "file": "{:.1f} MiB"}

# runs in a process of its own, because memory used by one form would count for the next
PROBE = """
import sys
import numpy
image = numpy.zeros((int(sys.argv[2]), int(sys.argv[2]), 3), numpy.uint8)
if sys.argv[3] == "transformers":
    import torch
    from transformers import AutoModelForSemanticSegmentation
    network = AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1]).eval()
    with torch.inference_mode():
        network(pixel_values=torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
else:
    import nailseg
    nailseg.load(sys.argv[1], "cpu")(image)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@dataclasses.dataclass
class Row:
    """One form with one number of threads."""

    form: str  # transformers (the baseline), torch, onnx, openvino, openvino bf16
    threads: int
    median: float  # milliseconds per image
    p95: float  # milliseconds, 95th percentile
    throughput: float  # images per second, one after the other
    ratio: float | None  # median of the baseline / median, same threads; None without a baseline
    agreement: float  # share of mask pixels (0..1) equal to the first form's
    memory: float | None  # MiB, peak of a process of its own; None where the system does not tell
    start: float | None  # seconds of that process, until its first image is done; None as memory
    file: float  # MiB on disk


def bench(
    model: str | Path,
    /,
    *,
    images: Sequence[str] = (),
    size: int | None = None,
    threads: Sequence[int] = (),
    repeats: int = 20,
    out: str | Path | None = None,
) -> str:
    """Times a model in all its forms: transformers (if it knows the network), torch, ONNX Runtime, OpenVINO.

    Args:
        model: A model folder or checkpoint, which is exported to a temporary folder; or an exported file.
        images: An image, or a folder whose first image is taken; by default a drawn hand.
        size: Height and width in pixels of the image and, unless the model is an exported file, of the
            network's input; the model's own size by default.
        threads: Numbers of threads to time with; by default 1 and all.
        repeats: Number of timed runs of each form.
        out: New folder for bench.json and bench.svg.

    Raises:
        WeightsError: The model cannot be opened.
        ConfigError: The export extra is not installed, or a number below 1.
        OutputError: `out` exists.
    """
    threads = threads or sorted({1, torch.get_num_threads()})
    if min(*threads, repeats, size or 1) < 1:
        raise ConfigError(
            f"--threads {threads}, --repeats {repeats}, --size {size}: expected numbers from 1 on."
        )
    # the folder first: a name that exists is an error before anything is timed
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(model_folder.new_folder(out)) if out is not None else None
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        info, sources, openers = _forms(model, size, Path(scratch))
        side = size or info.longest_side
        image = cv2.resize(load_images(images)[0], (side, side))[None]
        costs = {form: _probe(form, source, side) for form, source in sources.items()}
        rows: list[Row] = []
        for number in threads:
            backends = {form: opener(number) for form, opener in openers.items()}
            figures = _time_forms(backends, image, repeats)
            rows += [Row(form, number, *figures[form], *costs[form]) for form in backends]
        if folder is not None:
            content = json.dumps([vars(row) for row in rows], indent=2)
            (folder / "bench.json").write_text(f"{content}\n", encoding="utf-8")
            (folder / "bench.svg").write_text(plot_latencies(rows), encoding="utf-8")
    return f"{model}, one image of {side} x {side}, {repeats} times each\n{format_table(rows)}"


def _forms(model: str | Path, size: int | None, scratch: Path) -> tuple[Any, dict[str, Path], dict[str, Any]]:
    """The model's info, and for each form its file or folder and a function from threads to its backend."""
    if file := find_exported_file(model):
        form = {".onnx": "onnx", ".xml": "openvino"}[file.suffix]
        return open_exported(file).info, {form: file}, {form: partial(open_exported, file, "cpu")}
    reference = open_torch(model, "cpu")
    network = reference.network
    info = dataclasses.replace(reference.info, image_size=size or reference.info.image_size)
    plain = model_folder.save_model_folder(scratch / "model", network, info)

    def in_torch(network: torch.nn.Module, number: int) -> Backend:
        torch.set_num_threads(number)  # one for the whole process
        return TorchBackend(network, info, "cpu")

    sources, openers = {}, {}
    if not isinstance(network, StandaloneNetwork):  # else transformers does not know it
        stock = copy.deepcopy(network)
        with quiet_transformers():
            stock.logits = type(network).load_reference(plain)
        sources[BASELINE], openers[BASELINE] = plain, partial(in_torch, stock)
    sources["torch"], openers["torch"] = plain, partial(in_torch, network)
    writers = dict(WRITERS)
    if "BF16" in import_runtime("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        writers["openvino bf16"] = partial(WRITERS["openvino"], precision="bf16")
    for form, write in writers.items():
        sources[form] = scratch / form
        sources[form].mkdir()
        write(sources[form], network, info)
        openers[form] = partial(open_exported, sources[form], "cpu")
    return info, sources, openers


def _probe(form: str, source: Path, side: int) -> tuple[float | None, float | None, float]:
    """Fields `memory`, `start` and `file` of `Row`."""
    files = list(source.rglob("*")) if source.is_dir() else [source]
    if source.suffix == ".xml":
        files.append(source.with_suffix(".bin"))  # an OpenVINO export is two files
    on_disk = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
    command = [sys.executable, "-W", "ignore", "-c", PROBE, str(source), str(side), form]
    begin = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode == 0:
        return int(done.stdout.split()[-1]) / 1024, seconds, on_disk
    reason = last_line(done.stderr)
    log.warning("%s: memory and start could not be measured in a process of its own (%s)", form, reason)
    return None, None, on_disk


def _time_forms(backends: dict[str, Backend], image: np.ndarray, repeats: int) -> dict[str, tuple]:
    """Runs all forms in turn, `repeats` times after the warm-up; fields `median` to `agreement` of `Row`."""
    times: dict[str, list[float]] = {form: [] for form in backends}
    masks = {}
    for repeat in range(repeats + WARM_UP):
        for form, backend in backends.items():
            time.sleep(PAUSE)
            begin = time.perf_counter()
            masks[form] = backend(image)[0]
            if repeat >= WARM_UP:
                times[form].append(1e3 * (time.perf_counter() - begin))
    figures = {}
    for form, taken in times.items():
        median, p95 = statistics.median(taken), float(np.percentile(taken, 95))
        ratio = statistics.median(times[BASELINE]) / median if BASELINE in times else None
        agreement = float((masks[form] == next(iter(masks.values()))).mean())
        figures[form] = median, p95, 1e3 / statistics.mean(taken), ratio, agreement
    return figures


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text with a heading."""
    table = pd.DataFrame(map(vars, rows), dtype=object)
    for name, form in FORMATS.items():
        table[name] = [form.format(value) if value is not None else "-" for value in table[name]]
    return table.to_string(index=False)


def plot_latencies(rows: Sequence[Row]) -> str:
    """Draws the latency of each form, with a bar for each number of threads, as SVG."""
    counts = sorted({row.threads for row in rows})
    forms = list(dict.fromkeys(row.form for row in rows))
    figure, (axis,) = new_figure(width=6.4, height=1.2 + 0.45 * len(forms))
    bar = 0.8 / len(counts)
    for number, count in enumerate(counts):
        some = [row for row in rows if row.threads == count]
        places = [forms.index(row.form) + (number - (len(counts) - 1) / 2) * bar for row in some]
        medians = [row.median for row in some]
        beyond = [[0.0] * len(some), [max(0.0, row.p95 - row.median) for row in some]]
        label = f"{count} thread{'s' * (count > 1)}"
        axis.barh(places, medians, bar, label=label, color=COLORS[number % len(COLORS)])
        axis.errorbar(medians, places, xerr=beyond, fmt="none", color=GREY)
    axis.set_yticks(range(len(forms)), forms)
    axis.invert_yaxis()
    axis.set(xlabel="milliseconds for an image: median, 95th percentile")
    axis.legend(frameon=False)
    return to_svg(figure)
