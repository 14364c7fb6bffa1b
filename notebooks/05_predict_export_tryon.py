# %% [markdown]
# # 5. Predict, export, try-on
#
# One model folder serves all uses: prediction in Python, an ONNX file for other programs, and a virtual try-on of
# polish. This notebook uses the model that the package includes; set your own model and photograph in the next cell.

# %%
# Settings
MODEL = "nailseg-lite0"  # or runs/NAME/model
PHOTO = None  # a path; None draws a hand
EXPORT = "exported"  # a folder for the ONNX file
COLORS = ("#c2185b", "#1a237e", "#00695c", "#d4af37")

# %%
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import nailseg
from nailseg.data.io.images import read_image
from nailseg.data.synthetic import draw_hand
from nailseg.export import export_model
from nailseg.imaging.recolor import compute_coverage, parse_color, recolor

image = read_image(PHOTO) if PHOTO else draw_hand(np.random.default_rng(8), 384, 4)[0]

# %% [markdown]
# ## Predict
#
# The input is a path, a PIL image, encoded bytes or an array. Mask and probabilities have the image's own size.

# %%
segment = nailseg.load(MODEL)
result = segment(image)
print(
    f"mask {result.mask.dtype} {result.mask.shape}, probability {result.probability.dtype} {result.probability.shape}"
)
print(f"trained for images of {segment.info.image_size} pixels; {segment.info.origin['licence']}")
figure, axes = plt.subplots(1, 3, figsize=(14, 5))
for axis, panel, title in zip(
    axes,
    (image, result.probability[1], result.overlay()),
    ("image", "probability of nail", "mask"),
    strict=True,
):
    axis.imshow(panel, cmap="magma")
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Export
#
# The graph contains resizing, normalisation, the network, upsampling and softmax; its input is uint8 pixels.
# The export is compared with torch on three image sizes and two batch sizes before it is kept.

# %%
if not Path(EXPORT).exists():
    print(export_model(MODEL, format="onnx", out=EXPORT))
exported = nailseg.load(Path(EXPORT) / "model.onnx")
exported_result = exported(image)
print(f"masks agree on {100 * (exported_result.mask == result.mask).mean():.3f} % of the pixels")


# %%
def milliseconds(model, rounds: int = 7) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        model(image)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


print(f"torch {milliseconds(segment):.0f} ms, ONNX Runtime {milliseconds(exported):.0f} ms for this image")

# %% [markdown]
# The file runs without nailseg: it needs ONNX Runtime and NumPy.

# %%
import onnxruntime

session = onnxruntime.InferenceSession(Path(EXPORT) / "model.onnx", providers=["CPUExecutionProvider"])
pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None])  # uint8 (N, 3, H, W), RGB, any size
mask, probability = session.run(["mask", "probability"], {"image": pixels})
print("equal masks:", bool((mask[0] == exported_result.mask).all()))

# %% [markdown]
# ## Try-on
#
# The probability is the opacity of the colour, which gives a soft edge. Light and shade of the nail are kept, and
# a small part of the old hue.

# %%
figure, axes = plt.subplots(1, len(COLORS) + 1, figsize=(3.2 * (len(COLORS) + 1), 3.6))
axes[0].imshow(image)
coverage = compute_coverage(result.mask, result.foreground_probability())
for axis, color in zip(axes[1:], COLORS, strict=True):
    axis.imshow(recolor(image, coverage, parse_color(color)))
    axis.set_title(color)
for axis in axes:
    axis.axis("off")
plt.show()
