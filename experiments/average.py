"""Averages the weights of runs that differ only in their seed.

    python experiments/average.py OUT RUN RUN --csv CSV --root DIR

Networks fine-tuned from the same weights for a short time stay in one low-loss region, where the mean of
the weights is often better than each of them (Wortsman et al. 2022, "Model soups"). OUT gets the layout of
a run folder: model/, with the threshold of the validation part and the test's numbers, and test/, the
report.
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file, save_file

from nailseg.checkpoints import model_folder
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.evaluation import report
from nailseg.inference.backends.torch import create_backend
from nailseg.inference.segmenter import Segmenter
from nailseg.training.task import SegmentationTask


def write_mean(folders: list[Path], out: Path) -> None:
    """Writes the mean of model folders' weights as a model folder; everything else is the first one's."""
    states = [load_file(folder / "model.safetensors") for folder in folders]
    network = model_folder.open_network(folders[0])
    model_folder.save_model_folder(out, network, model_folder.read_model_info(folders[0]))
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    save_file(mean, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with model/")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument(
        "--size", type=int, help="longer side of the images in pixels; default: the first run's"
    )
    options = parser.parse_args()
    mean = options.out / "mean"
    write_mean([run / "model" for run in options.runs], mean)
    info = model_folder.read_model_info(mean)
    size = options.size or info.image_size
    data = SegmentationDataModule(csv=options.csv, root=options.root, size=size, batch_size=16)
    task = SegmentationTask(weights=str(mean), class_names=data.class_names, image_size=data.size)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, devices=1)
    trainer.validate(task, data, verbose=False)
    print(f"validation\n{report.summary_table(task.summary)}", flush=True)
    task.choose_threshold()
    trainer.test(task, data, verbose=False)
    segmenter = Segmenter(create_backend(task.network, task.info(), task.device))
    metrics, _ = report.write_report(
        options.out / "test", task.image_counts, segmenter, data, "test", mean, task.surface_tolerance
    )
    print(f"test\n{report.summary_table(metrics)}")
    task.data_facts = data.facts()
    task.save(options.out / "model", metrics=metrics)


if __name__ == "__main__":
    main()
