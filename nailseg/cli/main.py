"""The verbs of `nailseg`; `main(args)` is the whole command line in one call.

Each verb imports what it needs when it runs, so that `nailseg --help` answers at once. fit, validate and test
are Lightning's command line (train.py); the others are plain argparse.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nailseg import __version__
from nailseg.errors import ConfigError, NailsegError
from nailseg.model_info import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIGHTNING_VERBS = {
    "fit": "train a model on a CSV of image/mask pairs",
    "validate": "measure a model on the CSV's val rows",
    "test": "measure a model on the CSV's test rows",
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        args: the command line without the program's name; None takes the process's own.

    Returns:
        0 done, 1 the input is at fault. The argument parsers exit with 2 by themselves.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args and args[0] in LIGHTNING_VERBS:

        def verb() -> object:
            from nailseg import train

            return train.run(args[0], args[1:])

        return guarded(verb)
    options = _parser().parse_args(args)
    with _ended_in_order():
        return guarded(lambda: _call(**vars(options)))


def _call(run: str, **options: Any) -> object:
    """Calls what does a verb's work, `module:function`, with the verb's options; prints what it says."""
    module, _, function = run.partition(":")
    result = getattr(import_module(module), function)(**options)
    if result is not None and not isinstance(result, int):
        print(result)
    return result


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the process as an exception does: what is half written is removed on the way out."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's business
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(action: Callable[[], object]) -> int:
    """Runs an action and turns faults of the input into one message and exit code 1, without a traceback."""
    _log_to_stderr()
    try:
        result = action()
    except (NotADirectoryError, FileExistsError) as error:
        print(
            f"nailseg: {error.filename}: expected a folder or a new name, found that it, or what it lies in, "
            f"is a file ({error.strerror}). Choose another place.",
            file=sys.stderr,
        )
        return 1
    except (NailsegError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"nailseg: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nailseg: interrupted", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be imported here
            raise
        first = str(error).partition("\n")[0]
        print(
            f"nailseg: the GPU's memory is full. {first} Take a smaller "
            "--data.batch_size (with --trainer.accumulate_grad_batches for the same steps) or --data.size; "
            "predict: --tile.",
            file=sys.stderr,
        )
        return 1
    return result if isinstance(result, int) else 0


def _log_to_stderr() -> None:
    """Shows the package's own lines; on rank 0 only, the others would repeat them."""
    logger = logging.getLogger("nailseg")
    logger.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]  # anew each time: the process may have another stderr by now
    logger.propagate = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nailseg", description="Fine-tune SegFormer on your own image/mask folders."
    )
    parser.add_argument("--version", action="version", version=f"nailseg {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    sample = verbs.add_parser("sample", help="draw a sample data set: Images/1..4 and Masks/1..4")
    sample.add_argument("folder", metavar="DIR", help="a folder that has no Images/ or Masks/ yet")
    sample.add_argument("--count", type=_whole, default=240, help="how many images (default %(default)s)")
    sample.add_argument(
        "--size", type=_whole, default=256, help="about how many pixels a side (default %(default)s)"
    )
    sample.add_argument("--seed", type=_whole, default=0, help="same seed, same images (default %(default)s)")
    sample.set_defaults(run="nailseg.cli.main:_sample")

    index = verbs.add_parser("index", help="pair images with masks, split them, write the CSV")
    index.add_argument(
        "root", metavar="DIR", help="has Images/ and Masks/, or train|valid/{images,masks}; or a CSV"
    )
    index.add_argument("--out", metavar="CSV", help="default DIR/nails.csv")
    index.add_argument(
        "--val", type=float, default=0.1, help="share of the pairs for validation (default %(default)s)"
    )
    index.add_argument(
        "--test", type=float, default=0.1, help="share of the pairs for the test (default %(default)s)"
    )
    index.add_argument(
        "--group",
        metavar="REGEX",
        help="what its first group matches in a path stays on one side of the split; or: folder, column:NAME",
    )
    index.add_argument("--folds", type=int, metavar="K", help="write K CSVs, each with another part as val")
    index.add_argument(
        "--no-near-duplicates",
        dest="near_duplicates",
        action="store_false",
        help="do not search for near-duplicates (opens no file)",
    )
    index.add_argument("--seed", type=_whole, default=0, help="same seed, same split (default %(default)s)")
    index.set_defaults(run="nailseg.data.splitting.index:index_dataset", progress=True)

    importer = verbs.add_parser("import", help="other people's formats -> Images/, Masks/ and nails.csv")
    importer.add_argument("kind", choices=["yolo", "coco", "hub"], help="hub: Hugging Face datasets")
    importer.add_argument("src", metavar="SRC", help="folder or file; for hub also owner/name")
    importer.add_argument("out", metavar="DIR", help="a new or empty folder")
    importer.add_argument(
        "--classes",
        action="append",
        metavar="NAME[=A,B]",
        help="keep a class, or several as one (NAME=* for all); once per class. hub: names by mask value",
    )
    importer.add_argument(
        "--exif",
        choices=["upright", "stored"],
        default="upright",
        help="how the labelling tool showed turned photographs, if SRC does not say (default %(default)s)",
    )
    importer.add_argument("--resplit", action="store_true", help="deal splits anew, groups whole")
    importer.add_argument("--seed", type=_whole, default=0, help="of the splits dealt (default %(default)s)")
    importer.add_argument(
        "--skip-bad", action="store_true", help="leave images with faults out, and say which"
    )
    importer.add_argument(
        "--columns", default=argparse.SUPPRESS, metavar="IMAGE,MASK", help="hub: which columns"
    )
    importer.add_argument(
        "--subset", default=argparse.SUPPRESS, metavar="NAME", help="hub: which configuration of the data set"
    )
    importer.add_argument(
        "--mask-values",
        default=argparse.SUPPRESS,
        metavar="JSON",
        help="hub: what mask values or colours mean, as --data.mask_values",
    )
    importer.set_defaults(run="nailseg.data.importers.importer:import_dataset")

    check = verbs.add_parser("check", help="find every fault of a data set, and say how to mend it")
    check.add_argument("csv", metavar="CSV", help="image,mask,split,group")
    check.add_argument("--root", metavar="DIR", help="folder the CSV's paths start from (default its own)")
    check.add_argument("--json", dest="as_json", action="store_true", help="faults and fingerprint as JSON")
    check.add_argument("--allow", nargs="+", default=[], metavar="CODE", help="kinds of faults that pass")
    check.add_argument(
        "--for", dest="command", choices=("fit", "validate", "test"), default="fit", help="whose needs"
    )
    check.add_argument("--skip-bad", action="store_true", help="leave out rows that a fault names")
    check.add_argument(
        "--write-clean", dest="clean", metavar="DIR", help="copy the sound rows, masks as class indices"
    )
    check.add_argument("--sheet", metavar="PNG", help="thumbnails with outlines, worst suspects first")
    check.add_argument("--classes", nargs="+", default=["background", "nail"], metavar="NAME")
    check.add_argument(
        "--mask-values", type=_table, metavar="JSON", help='e.g. \'{"0": "background", "255": "nail"}\''
    )
    check.add_argument(
        "--max-pixels", type=int, default=200_000_000, help="most pixels of an image (default %(default)s)"
    )
    check.set_defaults(run="nailseg.data.validation.command:validate_dataset")

    predict = verbs.add_parser("predict", help="write masks at the images' original size")
    predict.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, globs and CSVs")
    predict.add_argument(
        "--model", default=SHIPPED, help="a model folder, checkpoint, run or export (default %(default)s)"
    )
    predict.add_argument("--out", required=True, metavar="DIR", help="masks go here under the images' names")
    predict.add_argument("--root", metavar="DIR", help="folder a CSV's paths start from (default its own)")
    predict.add_argument("--split", choices=("train", "val", "test"), help="only these rows of a CSV")
    predict.add_argument("--overlay", dest="overlays", action="store_true", help="also NAME.overlay.jpg")
    predict.add_argument(
        "--probability", action="store_true", help="also NAME.probability.png, 16 bits, 65535 is certain"
    )
    predict.add_argument(
        "--polygons", action="store_true", help="also polygons.json: COCO, to correct in an annotation tool"
    )
    predict.add_argument(
        "--csv", dest="table", action="store_true", help="also objects.csv: count, areas, boxes per image"
    )
    predict.add_argument(
        "--index",
        dest="as_index",
        action="store_true",
        help="write class indices, not 0/255, for two classes too",
    )
    predict.add_argument(
        "--threshold",
        type=_probability,
        metavar="model|P",
        help="probability from which on a pixel is foreground; model: the one with the best validation Dice",
    )
    predict.add_argument(
        "--tta", action="store_true", help="mean of mirrored and resized views: better, six times the work"
    )
    predict.add_argument(
        "--tile",
        type=_pixels,
        metavar="auto|PX",
        help="cut large photographs into blended tiles of PX pixels; auto: the network's own size",
    )
    predict.add_argument("--resume", action="store_true", help="leave out images whose files are all there")
    predict.add_argument("--device", help="cpu, cuda, …; default a GPU if there is one")
    predict.add_argument(
        "--devices", type=int, default=1, metavar="N", help="processes, or GPUs, that share the images"
    )
    predict.set_defaults(run="nailseg.inference.batch:predict_files")

    compare = verbs.add_parser("compare", help="paired differences of runs over the same images")
    compare.add_argument("reference", metavar="RUN", help="run folder, test folder or per_image.csv")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="compared with the first")
    compare.add_argument("--out", metavar="DIR", help="default runs/compare-NAME-NAME")
    compare.add_argument("--seed", type=_whole, default=0, help="of the bootstrap (default %(default)s)")
    compare.set_defaults(run="nailseg.cli.main:_compare")

    convert = verbs.add_parser("convert", help="NVlabs or mmsegmentation weights -> a model folder")
    convert.add_argument("file", metavar="FILE.pth", help="a SegFormer, or its encoder alone")
    convert.add_argument("folder", metavar="DIR", help="a folder that does not exist yet")
    convert.add_argument(
        "--classes", nargs="+", metavar="NAME", help="in index order; leave them out to fine-tune for others"
    )
    convert.add_argument("--encoder", action="store_true", help="leave the decode head out")
    convert.add_argument(
        "--licence", default=argparse.SUPPRESS, help="of the weights (default: NVIDIA's, non-commercial)"
    )
    convert.set_defaults(run="nailseg.checkpoints.convert:convert")

    export = verbs.add_parser("export", help="a transformers folder, ONNX or OpenVINO, compared with torch")
    export.add_argument("model", metavar="M", help="a model folder, a checkpoint or a run folder")
    export.add_argument("--format", required=True, choices=("hf", "onnx", "openvino"))
    export.add_argument("--out", required=True, metavar="DIR", help="a folder that does not exist yet")
    export.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="fp16 halves the file, bf16 (openvino) computes so; only with --csv (default %(default)s)",
    )
    export.add_argument(
        "--images", nargs="+", default=[], metavar="PATH", help="compare on these (default drawn ones)"
    )
    export.add_argument("--csv", help="a data set whose test rows say what a lower precision costs")
    export.add_argument("--root", metavar="DIR", help="folder the CSV's paths start from (default its own)")
    export.add_argument(
        "--max-drop", type=float, default=0.005, help="most IoU it may cost, 0 to 1 (default %(default)s)"
    )
    export.add_argument("--push", metavar="OWNER/NAME", help="then send the folder to the Hugging Face hub")
    export.set_defaults(run="nailseg.export.exporter:export_model")

    bench = verbs.add_parser("bench", help="how fast each form of a model is on this machine")
    bench.add_argument("model", metavar="M", help="a model folder, a checkpoint or an exported file")
    bench.add_argument(
        "--images", nargs="+", default=[], metavar="PATH", help="an image to time (default a drawn one)"
    )
    bench.add_argument("--size", type=int, metavar="PX", help="default the model's own")
    bench.add_argument("--threads", type=int, nargs="+", default=[], metavar="N", help="default 1 and all")
    bench.add_argument("--repeats", type=int, default=20, metavar="N", help="default %(default)s")
    bench.add_argument("--out", metavar="DIR", help="also bench.json and bench.svg, in a new folder")
    bench.set_defaults(run="nailseg.export.benchmark:bench")

    tryon = verbs.add_parser("tryon", help="a photograph with its nails in another colour")
    tryon.add_argument("photo", metavar="PHOTO")
    tryon.add_argument("--color", required=True, help="'#c2185b', 'rgb(194, 24, 91)' or crimson")
    tryon.add_argument(
        "--model", default=SHIPPED, help="a model folder, checkpoint, run or export (default %(default)s)"
    )
    tryon.add_argument("--out", metavar="FILE", help="default NAME.tryon.png in the current folder")
    tryon.add_argument("--device", help="cpu, cuda, …; default a GPU if there is one")
    tryon.set_defaults(run="nailseg.cli.tryon:recolor_file")

    serve = verbs.add_parser("serve", help="a model behind HTTP, and a page to try it on")
    serve.add_argument(
        "--model", default=SHIPPED, help="a model folder, checkpoint, run or export (default %(default)s)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="there is no password (default %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="0: a free one (default %(default)s)")
    serve.add_argument("--device", help="cpu, cuda, …; default a GPU if there is one")
    serve.add_argument("--threshold", type=_probability, metavar="model|P", help="as predict takes it")
    serve.set_defaults(run="nailseg.cli.main:_serve")

    for name, text in LIGHTNING_VERBS.items():
        verbs.add_parser(name, help=text)
    return parser


def _probability(text: str) -> str | float:
    try:
        return text if text == "model" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected model, or a number from 0 to 1, found {text}") from error


def _pixels(text: str) -> str | int:
    return text if text == "auto" else _whole(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text}")
    return int(text)


def _table(text: str) -> dict[str, Any]:
    try:
        if isinstance(table := json.loads(text), dict):
            return table
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected JSON, values and what they mean in braces, found {text}")


def _sample(folder: str, **options: int) -> str:
    from nailseg.data.synthetic.sample import write_sample

    files = write_sample(folder, **options)
    return f"{len(files)} images with masks in {folder}. Next: nailseg index {folder}"


def _serve(**options: Any) -> None:
    try:
        from nailseg.serving.app import serve
    except ImportError as error:
        raise ConfigError(
            f"nailseg serve needs what is not installed ({error}). Run: pip install 'nailseg[serve]'"
        ) from error
    serve(**options)


def _compare(reference: str, runs: list[str], **options: Any) -> str:
    from nailseg.cli.arguments import RUNS
    from nailseg.evaluation.compare import compare_runs

    return compare_runs([reference, *runs], parent=RUNS, **options)
