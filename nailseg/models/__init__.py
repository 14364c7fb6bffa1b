"""Networks: uint8 images in, full-size logits out. Nothing here knows about data or Lightning."""
