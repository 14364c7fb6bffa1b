"""Operations on images and figures: resizing and padding, overlays, recolouring, plots as SVG.

`geometry` resizes and pads images for the network and restores logits to the original size, `overlay` draws
masks over images and encodes images as files, `recolor` changes the colour of nails, `figures` holds the
matplotlib helpers. Import what you need from these modules: only `geometry` needs torch.
"""
