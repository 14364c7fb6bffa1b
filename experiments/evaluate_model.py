"""Chooses a model folder's threshold on the val part, tests it, and writes it again with both.

    python experiments/evaluate_model.py MODEL OUT --csv experiments/nailseg_b0_split.csv --root NAILS

For models that were not trained by `nailseg train`, which does the same at its end.
"""

import argparse

from lightning.pytorch import Trainer

from nailseg.checkpoints import model_folder
from nailseg.data import SegmentationDataModule
from nailseg.training import SegmentationTask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("out", help="the model folder to write")
    parser.add_argument("--csv", required=True)
    parser.add_argument("--root")
    options = parser.parse_args()
    info = model_folder.read_model_info(options.model)
    allow = ["near-duplicate-split"]  # of the val part; see the Makefile
    data = SegmentationDataModule(options.csv, options.root, size=info.image_size, batch_size=8, allow=allow)
    task = SegmentationTask(options.model, data.class_names, info.image_size, name=info.architecture)
    trainer = Trainer(accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False)
    trainer.validate(task, data)
    task.choose_threshold()
    trainer.test(task, data)
    data.setup("fit")
    print(task.save(options.out, metrics=task.summary, **data.facts()), task.threshold)


if __name__ == "__main__":
    main()
