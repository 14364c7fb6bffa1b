"""From a CSV of image and mask files to batches: reading, checking, splitting, augmenting."""
