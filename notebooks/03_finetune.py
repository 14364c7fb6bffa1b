# %% [markdown]
# # 3. Fine-tuning in Python
#
# The command `nailseg train --config finetune_small.yaml --data.csv dataset.csv` does all of this,
# with checkpoints, averaged weights and a report. This notebook uses its parts directly: a
# `LightningDataModule`, a `LightningModule` and a `Trainer`.

# %%
# Settings
FOLDER = "demo"  # has Images/, Masks/ and dataset.csv (notebook 1 makes them)
WEIGHTS = "nailseg-b0"  # or nvidia/segformer-b0-finetuned-ade-512-512 (non-commercial)
SIZE = 192  # pixels of the training crops
EPOCHS = 8
LEARNING_RATE = 1e-4  # a sixth of what random weights need: the network is trained already
COUNT = 60  # hands to draw if the folder does not exist

# %%
import logging
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, WandbLogger

import nailseg
from nailseg.data import SegmentationDataModule, index_dataset
from nailseg.data.synthetic import write_sample
from nailseg.imaging import draw_overlay
from nailseg.training import SegmentationTask

warnings.filterwarnings(
    "ignore", ".*(LeafSpec|IProgress)"
)  # Lightning calls what torch renamed; no ipywidgets
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
os.environ.setdefault("WANDB_SILENT", "true")
seed_everything(0, verbose=False)
folder = Path(FOLDER)
if not folder.exists():
    write_sample(folder, count=COUNT, size=256, seed=0)
if not (folder / "dataset.csv").exists():
    index_dataset(folder, val=0.15, test=0.15)

# %% [markdown]
# ## Data and model
#
# The data module decodes every file once and raises an error for ambiguous files. The task wraps
# transformers' `SegformerForSemanticSegmentation`. Its logits have a quarter of the resolution and are upsampled
# bilinearly **before** the argmax; the reverse order loses accuracy at every edge.

# %%
data = SegmentationDataModule(
    csv=str(folder / "dataset.csv"), size=SIZE, eval_size=256, batch_size=8, workers=0
)
task = SegmentationTask(
    weights=WEIGHTS,
    class_names=data.class_names,
    image_size=256,
    lr=LEARNING_RATE,
    head_lr_multiplier=1.0,  # the head is already trained; a new one gets ten times the rate
    drop_path=0.0,
)
print(
    f"{sum(p.numel() for p in task.parameters()) / 1e6:.2f} M parameters, from {task.network.origin['weights']}"
)

# %% [markdown]
# ## Before training
#
# The included model was trained on photographs, not on drawings. This cell measures it before fine-tuning.

# %%
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
before = Trainer(logger=False, accelerator="auto", devices=1, **quiet)
before.test(task, data, verbose=False)
dice_before = task.summary["dice_nail"]
print(f"Dice before: {dice_before:.3f}")

# %% [markdown]
# ## Train
#
# Two loggers: a CSV file, and Weights & Biases offline, which needs no account (`wandb sync` uploads the run
# later). For several GPUs, pass `devices=4, strategy="ddp", sync_batchnorm=True, use_distributed_sampler=False`: the data
# module distributes the rows, so that evaluation counts every image exactly once.

# %%
loggers = [
    CSVLogger("notebook-runs", name="finetune"),
    WandbLogger(project="nailseg", offline=True, save_dir="notebook-runs"),
]
trainer = Trainer(
    max_epochs=EPOCHS,
    accelerator="auto",
    devices=1,
    gradient_clip_val=5.0,
    logger=loggers,
    log_every_n_steps=1,
    **quiet,
)
trainer.fit(task, data)

# %%
curves = pd.read_csv(Path(loggers[0].log_dir) / "metrics.csv")
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.5))
loss = curves.dropna(subset="train/loss")
left.plot(loss["epoch"], loss["train/loss"], marker="o")
left.set(xlabel="epoch", ylabel="training loss (cross-entropy + Dice)")
val = curves.dropna(subset="val/dice_nail")
right.plot(val["epoch"], val["val/dice_nail"], marker="o")
right.set(xlabel="epoch", ylabel="validation Dice of nail")
plt.show()

# %% [markdown]
# ## Test, view predictions, save
#
# The test measures at the masks' original size. Two networks with the same Dice can fail in different ways, so view the
# predictions too.

# %%
trainer.test(task, data, verbose=False)
dice_after = task.summary["dice_nail"]
print(f"Dice: before {dice_before:.3f}, after {dice_after:.3f}")
assert dice_after > dice_before, "fine-tuning did not help: try a lower learning rate or more epochs"
numbers = {key: value for key, value in task.summary.items() if isinstance(value, float)}
pd.Series(numbers, name="test").round(3).to_frame()

# %%
model = Path("notebook-runs") / f"model-{len(list(Path('notebook-runs').glob('model*'))) + 1}"
task.save(model)  # plain transformers loads this folder too
segment = nailseg.load(model)
shown = data.rows("test")[:4]
figure, axes = plt.subplots(2, len(shown), figsize=(3.2 * len(shown), 6.4))
for column, row in enumerate(shown):
    result = segment(data.manifest.root / row.image)
    axes[0, column].imshow(result.image)
    axes[1, column].imshow(draw_overlay(result.image, result.mask))
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %%
import wandb

wandb.finish()
