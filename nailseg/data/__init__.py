"""Data sets: from the CSV of images and masks to batches.

`manifest` and `pairing` list the files, `io` decodes them, and `mask_encoding` turns the values of mask files
into classes. `splitting` writes the CSV with its train, val and test parts, `validation` finds what is wrong
with a data set, `importers` reads other formats, and `synthetic` draws sample data. `dataset`, `downscale`,
`cache`, `augmentation` and `samplers` make the batches that `SegmentationDataModule` gives to a Trainer. The
public names are imported on first use, because the data module needs torch and Lightning.
"""

from typing import TYPE_CHECKING

from nailseg._lazy import lazy_names

if TYPE_CHECKING:
    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.data.importers.importer import import_dataset
    from nailseg.data.mask_encoding import MaskEncoding
    from nailseg.data.splitting.index import index_dataset
    from nailseg.data.validation.command import validate_dataset

__all__ = ["MaskEncoding", "SegmentationDataModule", "import_dataset", "index_dataset", "validate_dataset"]
__getattr__ = lazy_names(
    __name__,
    "datamodule.SegmentationDataModule",
    "importers.importer.import_dataset",
    "mask_encoding.MaskEncoding",
    "splitting.index.index_dataset",
    "validation.command.validate_dataset",
)
