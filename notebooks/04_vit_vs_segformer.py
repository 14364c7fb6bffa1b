# %% [markdown]
# # 4. A plain ViT against SegFormer: the effect of 16 x 16 patches
#
# A tutorial on Oxford-IIIT Pet segments with a plain ViT: 64 patches of 16 x 16 pixels, twelve blocks, and one
# linear layer that maps each patch's token to 16 x 16 pixels. It reached 85.89 % validation accuracy, below
# the 88.28 % of a convolutional network; its author names the coarse patches as a possible reason. Here both networks train for the same
# number of steps on the same images, and after every epoch the same validation images are predicted.

# %%
# Settings
FOLDER = "demo"  # has Images/, Masks/ and dataset.csv (notebook 1 makes them)
COUNT = 60  # hands to draw if the folder does not exist
SIZE = 128  # fixed by the ViT's position embedding
EPOCHS = 40  # of five steps on 42 images: enough to show the difference, too few for a good result
LEARNING_RATES = {"segformer": 1e-3, "vit": 4e-4}
SHOWN = 4  # validation images that are predicted after every epoch
GIF = "vit_vs_segformer.gif"

# %%
import logging
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from PIL import Image

from nailseg.data import SegmentationDataModule, index_dataset
from nailseg.data.synthetic import write_sample
from nailseg.training import SegmentationTask

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
folder = Path(FOLDER)
if not folder.exists():
    write_sample(folder, count=COUNT, size=256, seed=0)
if not (folder / "dataset.csv").exists():
    index_dataset(folder, val=0.15, test=0.15)

# %% [markdown]
# ## Two networks behind one interface
#
# `--model.name` on the command line is `name=` in Python. The ViT needs images squashed to its one size; SegFormer takes any size.

# %%
WEIGHTS = {"segformer": "b0-random", "vit": "vit-small-random"}


class ProbabilityRecorder(Callback):
    """Stores the foreground probability of some images after every epoch."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.frames = images, []

    def on_train_epoch_end(self, trainer: Trainer, task: SegmentationTask) -> None:
        task.eval()
        with torch.no_grad():
            self.frames.append(task(self.images.to(task.device)).softmax(1)[:, 1].float().cpu().numpy())
        task.train()


frames, dice, count = {}, {}, {}
for name, weights in WEIGHTS.items():
    seed_everything(0, verbose=False)
    data = SegmentationDataModule(
        csv=str(folder / "dataset.csv"), size=SIZE, resize="squash", batch_size=8, workers=0
    )
    task = SegmentationTask(
        name=name,
        weights=weights,
        image_size=SIZE,
        resize="squash",
        lr=LEARNING_RATES[name],
        head_lr_multiplier=1.0,
        drop_path=0.0,
    )
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    images = batch["image"][:SHOWN]
    recorder = ProbabilityRecorder(images)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="auto",
        devices=1,
        gradient_clip_val=5.0,
        logger=False,
        callbacks=[recorder],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    frames[name], dice[name] = recorder.frames, task.summary["dice_nail"]
    count[name] = sum(p.numel() for p in task.parameters()) / 1e6
for name in WEIGHTS:
    print(f"{name:10s} {count[name]:5.1f} M parameters, test Dice {dice[name]:.3f}")

# %% [markdown]
# ## Predictions by epoch
#
# The images in the first row, then the probability of nail from SegFormer and from the ViT. The ViT's output has blocks: each
# token determines its 256 pixels alone, no layer connects the pixels of neighbouring patches, and the boundaries follow the grid.


# %%
def frame(epoch: int) -> np.ndarray:
    rows = [np.hstack([image.permute(1, 2, 0).numpy() for image in images])]
    for name in WEIGHTS:
        grey = [np.repeat((255 * p)[..., None], 3, 2).astype(np.uint8) for p in frames[name][epoch]]
        row = np.hstack(grey)
        cv2.putText(
            row, f"{name}, epoch {epoch + 1}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 200, 0), 1
        )
        rows.append(row)
    return np.vstack(rows)


animation = [
    Image.fromarray(frame(epoch)).resize((SIZE * SHOWN * 3 // 2, SIZE * 9 // 2)) for epoch in range(EPOCHS)
]
animation[0].save(GIF, save_all=True, append_images=animation[1:], duration=500, loop=0)
figure, axes = plt.subplots(1, 2, figsize=(15, 6))
for axis, epoch in zip(axes, (EPOCHS // 3, EPOCHS - 1), strict=True):
    axis.imshow(frame(epoch))
    axis.set_title(f"after epoch {epoch + 1}")
    axis.axis("off")
plt.show()
print(GIF)

# %% [markdown]
# ## Measuring the blocks
#
# The ratio of the probability's differences across the borders of the 16 x 16 grid to those across the other multiples of
# four, where SegFormer's own grid lies. 1 means that the patches have no effect.


# %%
def patch_ratio(probability: np.ndarray, patch: int = 16) -> float:
    steps = np.abs(np.diff(probability, axis=2)).mean((0, 1))
    column = np.arange(1, probability.shape[2])
    border, other = column % patch == 0, (column % 4 == 0) & (column % patch != 0)
    return float(steps[border].mean() / max(steps[other].mean(), 1e-9))


for name in WEIGHTS:
    plt.plot(
        range(1, EPOCHS + 1),
        [patch_ratio(probability) for probability in frames[name]],
        marker="o",
        label=name,
    )
plt.axhline(1, color="grey", linewidth=0.8)
plt.gca().set(xlabel="epoch", ylabel="steps across the 16 grid / the 4 grid")
plt.legend()
plt.show()

# %% [markdown]
# SegFormer avoids this with four scales instead of one, overlapping patches, a convolution inside every block, no position
# embedding, and a prediction at a quarter of the image's size instead of a sixteenth. Next: `05_predict_export_tryon`.
