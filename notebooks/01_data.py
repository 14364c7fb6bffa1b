# %% [markdown]
# # 1. The data: pairing, splits, validation, augmentation
#
# The quality of a segmentation model depends on its masks. This notebook pairs images with masks, splits them
# without leakage between the parts, validates the data set, counts the classes and shows augmented images.
# It runs on drawn hands; set your own folder in the next cell.

# %%
# Settings
FOLDER = "demo"  # has Images/ and Masks/; hands are drawn there if it does not exist
COUNT = 60  # how many hands to draw
SIZE = 192  # pixels of the network's input
SEED = 0

# %%
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from nailseg.data import index_dataset, validate_dataset
from nailseg.data.augmentation import Augmentation, TrainingTransform
from nailseg.data.io.images import read_image
from nailseg.data.synthetic import write_sample
from nailseg.imaging import draw_overlay

folder = Path(FOLDER)
if not folder.exists():
    write_sample(folder, count=COUNT, size=256, seed=SEED)

# %% [markdown]
# ## Pair and split
#
# `index_dataset` pairs files by relative path and stem, not by their position in a list. It puts near-duplicates
# (the same photograph cropped or recompressed, neighbouring frames of a video) into one **group**, and all images
# of a group are in the same split. A test on a near-duplicate of a training image measures memorisation.

# %%
table = folder / "dataset.csv"
if not table.exists():
    print(index_dataset(folder, val=0.15, test=0.15, seed=SEED))

# %%
rows = pd.read_csv(table)
rows["folder"] = rows["image"].map(lambda path: Path(path).parent.name)
rows.pivot_table(index="folder", columns="split", values="image", aggfunc="count", fill_value=0)

# %% [markdown]
# ## Validation
#
# `nailseg check` decodes every file once and lists each issue with the file and a fix. As an example, one mask in a
# copy of the data set is truncated. `cv2.imread` returns wrong pixels for many damaged files, and the loss
# does not show it.

# %%
import shutil

broken = folder.with_name(folder.name + "-broken")
shutil.rmtree(broken, ignore_errors=True)
shutil.copytree(folder, broken)
truncated = broken / rows["mask"][0]
truncated.write_bytes(truncated.read_bytes()[:60])
print("exit code", validate_dataset(str(broken / table.name)))
shutil.rmtree(broken)

# %%
sheet = folder / "sheet.png"
sheet.unlink(missing_ok=True)
print("exit code", validate_dataset(str(table), sheet=str(sheet)))
plt.figure(figsize=(12, 10))
plt.imshow(read_image(sheet))
plt.axis("off")
plt.title("issues and outliers first")
plt.show()

# %% [markdown]
# ## Class balance
#
# A few per cent of the pixels are nail. Pixel accuracy is therefore not useful (predicting "background"
# everywhere scores above 90 %), and with cross-entropy alone the network learns the background first. The training
# loss adds a soft Dice term, which depends on the nail class only.


# %%
def mask_of(row: pd.Series) -> np.ndarray:
    return read_image(folder / row["mask"])[..., 0] > 127


shares = rows.apply(lambda row: mask_of(row).mean(), axis=1)
objects = rows.apply(lambda row: cv2.connectedComponents(mask_of(row).astype(np.uint8))[0] - 1, axis=1)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.5))
left.hist(100 * shares, bins=20)
left.set(xlabel="% of the pixels that are nail", ylabel="images")
right.hist(objects, bins=np.arange(objects.max() + 2) - 0.5)
right.set(xlabel="separate nails", ylabel="images")
plt.show()
print(
    f"nail pixels: {100 * shares.mean():.1f} % on average; predicting none has {100 - 100 * shares.mean():.1f} % accuracy"
)

# %% [markdown]
# ## Augmented training images
#
# Each augmentation is seeded by (seed, epoch, row), so the result does not depend on the worker. The mask
# goes through the same geometric transform with nearest-neighbour interpolation. Pixels outside the image become
# 255 and are ignored.

# %%
image = read_image(folder / rows["image"][4])
mask = mask_of(rows.iloc[4]).astype(np.uint8)
transform = TrainingTransform(SIZE, "keep", Augmentation(recolor=0.5))
figure, axes = plt.subplots(3, 6, figsize=(14, 7))
for draw, axis in enumerate(axes.flat):
    augmented, labels = transform(image, mask, seed=draw)
    axis.imshow(draw_overlay(augmented, np.where(labels == 255, 0, labels), 0.35))
    axis.axis("off")
plt.suptitle("one image with eighteen seeds")
plt.show()

# %% [markdown]
# Next: `02_segformer_from_scratch` builds the network, `03_finetune` trains it on this CSV.
