# %% [markdown]
# # 2. SegFormer from scratch
#
# SegFormer (Xie et al. 2021) is a pyramid of attention stages with a decoder of linear layers. This
# notebook builds it step by step, prints every shape, checks the result against transformers, and ends with a
# reordered decoder that gives the same logits in a fraction of the time. The code is in
# `nailseg/models/mix_transformer.py`.

# %%
# Settings
ARCHITECTURE = "b0"  # the layer sizes of b0 … b5
SIZE = 224  # pixels of the input
HEADS, REDUCTIONS = (1, 2, 5, 8), (8, 4, 2, 1)

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from nailseg.data.synthetic import draw_hand
from nailseg.models import mix_transformer as mit

torch.manual_seed(0)
depths, widths, decoder_width = mit.ARCHITECTURES[ARCHITECTURE]
image = torch.randn(1, 3, SIZE, SIZE)

# %% [markdown]
# ## Overlapped patch merging
#
# A ViT divides the image into patches that do not overlap. SegFormer uses a convolution whose stride (4, then 2) is
# smaller than its kernel (7, then 3), so neighbouring patches share pixels. A layer norm over the channels
# follows.

# %%
merging = mit.OverlapPatchMerging(3, widths[0], 7, 4)
tokens, size = merging(image)
print(f"image {tuple(image.shape)} -> tokens {tuple(tokens.shape)}, a map of {size}")

# %% [markdown]
# ## Efficient self-attention
#
# With N tokens, attention costs N x N. The queries keep their full number; keys and values come from a map
# downscaled by a strided convolution, R times per side, so the cost is divided by R². Doubling both sides of an
# image multiplies the cost by 16 for every R: R changes the constant factor only.

# %%
attention = mit.EfficientSelfAttention(widths[0], heads=HEADS[0], reduction=REDUCTIONS[0])
print(f"attention: {tuple(tokens.shape)} -> {tuple(attention(tokens, size).shape)}")
keys = attention.reduce(mit.as_map(tokens, size))
print(f"{tokens.shape[1]} queries attend to {keys.shape[2] * keys.shape[3]} keys")

sides = np.arange(64, 1025, 64)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.8))
for reduction in (1, 2, 4, 8):
    left.plot(sides, (sides / 4) ** 4 / reduction**2 / 1e6, label=f"R = {reduction}")
left.set(xlabel="image side in pixels", ylabel="million query-key pairs, stage 1", yscale="log")
left.legend()
stages = np.arange(1, 5)
queries = np.array([(SIZE / 2 ** (stage + 1)) ** 2 for stage in stages])
right.bar(stages - 0.2, queries, 0.4, label="queries")
right.bar(stages + 0.2, queries / np.square(REDUCTIONS), 0.4, label="keys")
right.set(xlabel="stage", ylabel="tokens", yscale="log", xticks=stages)
right.legend()
plt.show()

# %% [markdown]
# ## Mix-FFN: position without a position embedding
#
# Dense, depth-wise 3x3, GELU, dense. The zero padding of the convolution encodes the distance to the border. It
# replaces the position embedding, so the network takes images of any size. One tutorial puts the depth-wise
# convolution before the expansion; in the paper it comes after, on the wide tokens, as here.

# %%
ffn = mit.MixFFN(widths[0], ratio=4)
print(f"Mix-FFN: {tuple(tokens.shape)} -> {tuple(ffn(tokens, size).shape)}")
zeros = torch.zeros_like(tokens)
with torch.no_grad():
    response = mit.as_map(ffn(zeros + 1.0, size), size)[0].std(0)
plt.figure(figsize=(4, 3.4))
plt.imshow((response - response[response.shape[0] // 2, response.shape[1] // 2]).abs())
plt.title("response to a constant map:\ndifference from the centre")
plt.colorbar()
plt.show()

# %% [markdown]
# ## Block, stage, encoder
#
# Pre-norm, residual, stochastic depth. The paper's figure shows the merging after the blocks. In every stage it comes
# **before** them, as in the paper's text and code.

# %%
block = mit.EncoderBlock(widths[0], HEADS[0], REDUCTIONS[0], ratio=4, drop_path=0.0)
print(f"block:   {tuple(tokens.shape)} -> {tuple(block(tokens, size).shape)}")
encoder = mit.MixTransformer(depths, widths, drop_path=0.0).eval()
with torch.no_grad():
    maps = encoder(image)
for number, features in enumerate(maps, 1):
    print(f"stage {number}: {tuple(features.shape)}   1/{SIZE // features.shape[-1]} of the image")
count = sum(p.numel() for p in encoder.parameters()) / 1e6
print(f"MiT-{ARCHITECTURE.upper()}: {count:.1f} M parameters")

# %% [markdown]
# ## The all-MLP decoder
#
# Each stage is projected to one width by a linear layer, upsampled to a quarter of the image, concatenated
# (deepest first), fused by one 1x1 convolution with batch norm and ReLU, and classified. 224 in, 56 out: the caller
# upsamples the logits bilinearly to the image's size.

# %%
decoder = mit.AllMLPDecoder(widths, decoder_width, classes=2).eval()
with torch.no_grad():
    logits = decoder(maps)
print(f"{SIZE} in, {logits.shape[-1]} out: {tuple(logits.shape)}")

# %% [markdown]
# ## Features of each stage
#
# The encoder of the included nail model on a drawn hand: the first three principal components of each stage's channels as red,
# green and blue. Early stages respond to edges, late ones to regions.

# %%
from nailseg.model_info import locate
from nailseg.models import build_network

network = build_network(locate("nailseg-b0"), name="mix_transformer").eval()
hand, mask = draw_hand(np.random.default_rng(4), 256, 4)
pixels = torch.from_numpy(hand.copy()).permute(2, 0, 1)[None]
with torch.no_grad():
    maps = network.paper.encoder((pixels / 255 - network.mean) / network.std)
figure, axes = plt.subplots(1, 5, figsize=(15, 3.4))
axes[0].imshow(hand)
for number, (axis, features) in enumerate(zip(axes[1:], maps, strict=True), 1):
    flat = features[0].flatten(1).T
    components = (flat - flat.mean(0)) @ torch.pca_lowrank(flat, 3)[2]
    low, high = components.quantile(0.02, 0), components.quantile(0.98, 0)
    colors = ((components - low) / (high - low)).clamp(0, 1)
    axis.imshow(colors.unflatten(0, features.shape[-2:]))
    axis.set_title(f"stage {number}: {features.shape[1]} channels")
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Comparison with transformers
#
# This network and `SegformerForSemanticSegmentation` take the same weights and give the same logits; a test checks
# the gradients too. (With transformers' own initialisation, std 0.02 for every convolution, a network hardly learns
# from scratch; the paper's code draws from a normal distribution of variance 2 / fan-out.)

# %%
from transformers import SegformerForSemanticSegmentation

stock = SegformerForSemanticSegmentation.from_pretrained(locate("nailseg-b0"), dtype=torch.float32).eval()
normalised = torch.randn(1, 3, 250, 310)  # odd sizes included
with torch.no_grad():
    ours, theirs = network.paper(normalised), stock(pixel_values=normalised).logits
print(f"largest difference: {(ours - theirs).abs().max() / theirs.abs().max():.1e} of the largest logit")

# %% [markdown]
# ## A faster order of operations in the decoder
#
# The decoder takes two thirds of the network's multiply-adds: it projects every stage to 256 (or 768) channels,
# upsamples all to a quarter of the image, and then reduces 4 x 256 channels to 256. Let $P_i x + b_i$ be
# the projections, $W_i$ the slice of the fusing convolution for stage $i$, and $U$ the bilinear upsampling:
#
# $$\sum_i W_i\, U(P_i x_i + b_i) = \sum_i U\big((W_i P_i)\, x_i\big) + \sum_i W_i b_i$$
#
# because $W_i$ acts on channels and $U$ on positions, and $U$'s weights sum to one, so it does not change the constant
# $b_i$. The right side fuses every stage at its own resolution. It is no approximation, the parameters are the
# same, and gradients reach $P_i$, $b_i$ and $W_i$ through the product.

# %%
from nailseg.models.decode_head import DecodeHead

written = mit.AllMLPDecoder(widths, decoder_width, classes=2).eval()
rewritten = DecodeHead(written).eval()
large = [
    torch.randn(1, width, 512 // 2 ** (stage + 2), 512 // 2 ** (stage + 2))
    for stage, width in enumerate(widths)
]


def milliseconds(function, rounds=8):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        with torch.no_grad():
            function(large)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


with torch.no_grad():
    difference = (written(large) - rewritten(large)).abs().max() / written(large).abs().max()
as_written, as_rewritten = milliseconds(written), milliseconds(rewritten)
print(
    f"difference {difference:.1e}; {as_written:.0f} ms in the paper's order, {as_rewritten:.0f} ms rewritten: {as_written / as_rewritten:.1f}x"
)

# %% [markdown]
# Next: `03_finetune`.
