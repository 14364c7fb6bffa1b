# %% [markdown]
# # 1. The data: what you have, what is wrong with it, what the network will see
#
# A segmentation model is as good as its masks. Before any training this notebook pairs images with masks,
# splits them so that the test stays honest, looks for faults, counts the classes and shows what augmentation
# makes of the images. It runs on drawn hands; put your own folder into the next cell.

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

from nailseg.data.validation.command import validate_dataset
from nailseg.data.io.images import read_image
from nailseg.data.splitting.index import index_dataset
from nailseg.data.synthetic.sample import write_sample
from nailseg.data.augmentation import Augmentation, TrainingTransform
from nailseg.imaging.overlay import draw_overlay

folder = Path(FOLDER)
if not folder.exists():
    write_sample(folder, count=COUNT, size=256, seed=SEED)

# %% [markdown]
# ## Pair and split
#
# `index_dataset` pairs by relative path and stem, never by position in a list. It puts near twins (the same
# photograph cropped or recoloured, neighbours in a video) into one **group**, and a group never lies on both
# sides of the split: a test on a twin of a training image measures memory.

# %%
table = folder / "nails.csv"
print(index_dataset(folder, out=table if not table.exists() else None, val=0.15, test=0.15, seed=SEED))

# %%
rows = pd.read_csv(table)
rows["folder"] = rows["image"].map(lambda path: Path(path).parent.name)
rows.pivot_table(index="folder", columns="split", values="image", aggfunc="count", fill_value=0)

# %% [markdown]
# ## What is wrong with it
#
# `nailseg check` decodes every file once and names each fault with the file and the way out. To see one, a
# copy of the set gets a mask cut off in the middle. `cv2.imread` would return rubbish for many a broken file, and the
# loss would look healthy.

# %%
import shutil

broken = folder.with_name(folder.name + "-broken")
shutil.rmtree(broken, ignore_errors=True)
shutil.copytree(folder, broken)
victim = broken / rows["mask"][0]
victim.write_bytes(victim.read_bytes()[:60])
print("exit code", validate_dataset(str(broken / table.name)))
shutil.rmtree(broken)

# %%
sheet = folder / "sheet.png"
sheet.unlink(missing_ok=True)
print("exit code", validate_dataset(str(table), sheet=str(sheet)))
plt.figure(figsize=(12, 10))
plt.imshow(read_image(sheet))
plt.axis("off")
plt.title("worst suspects first")
plt.show()

# %% [markdown]
# ## Class balance
#
# Nails are a few per cent of the pixels. Pixel accuracy is therefore useless (predicting "background"
# everywhere scores above 90 %), and a loss that counts pixels alone learns the background first: training adds a
# soft Dice term, which weighs the nail class by itself.


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
    f"nail pixels: {100 * shares.mean():.1f} % on average; predicting none is {100 - 100 * shares.mean():.1f} % 'right'"
)

# %% [markdown]
# ## What the network will see
#
# One draw per cell, seeded by (seed, epoch, row), so that it does not matter which worker reads it. The mask
# goes through the same geometry but is read with nearest neighbours; what lies outside the image becomes
# 255 and counts nowhere.

# %%
image = read_image(folder / rows["image"][4])
mask = mask_of(rows.iloc[4]).astype(np.uint8)
transform = TrainingTransform(SIZE, "keep", Augmentation(recolor=0.5))
figure, axes = plt.subplots(3, 6, figsize=(14, 7))
for draw, axis in enumerate(axes.flat):
    view, labels = transform(image, mask, seed=draw)
    axis.imshow(draw_overlay(view, np.where(labels == 255, 0, labels), 0.35))
    axis.axis("off")
plt.suptitle("the same image, eighteen times")
plt.show()

# %% [markdown]
# Next: `02_segformer_from_scratch` builds the network, `03_finetune` trains it on this CSV.
