"""Imports data sets of other formats: YOLO segmentation, COCO, and Hugging Face `datasets`.

`importer.import_dataset` (public as `nailseg.data.import_dataset`) is the entry point. `yolo`, `coco` and
`huggingface` each read a format into a `base.Source`, and `rasterize` draws its annotations as masks.
"""
