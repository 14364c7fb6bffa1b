"""Data sets: from the CSV of images and masks to batches.

`manifest` and `pairing` list the files, `io` decodes them, and `mask_encoding` turns the values of mask files
into classes. `splitting` writes the CSV with its train, val and test parts, `validation` finds what is wrong
with a data set, `importers` reads other formats, and `synthetic` draws sample data. `dataset`, `downscale`,
`cache`, `augmentation` and `samplers` make the batches that `SegmentationDataModule` gives to a Trainer. The
public names are imported on first use, because the data module needs torch and Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.data.importers.importer import import_dataset
    from nailseg.data.mask_encoding import MaskEncoding
    from nailseg.data.splitting.index import index_dataset
    from nailseg.data.validation.command import validate_dataset

__all__ = ["MaskEncoding", "SegmentationDataModule", "import_dataset", "index_dataset", "validate_dataset"]

_LAZY = {
    "MaskEncoding": "nailseg.data.mask_encoding",
    "SegmentationDataModule": "nailseg.data.datamodule",
    "import_dataset": "nailseg.data.importers.importer",
    "index_dataset": "nailseg.data.splitting.index",
    "validate_dataset": "nailseg.data.validation.command",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
