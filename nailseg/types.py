"""Samples, batches, class names and the special mask values: what several sub-packages share."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from nailseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = 255
"""Mask value of pixels that belong to no class: padding, and what the annotator left open."""

MAX_CLASSES = 254
"""Most classes, background included. Masks are 8 bits: indices end at 253, 254 marks file values without a
class while a mask is read, 255 is `IGNORE_INDEX`."""

DEFAULT_CLASSES = ("background", "nail")

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
"""Schedulers end a job with SIGTERM, terminals with SIGINT; SLURM can be told to warn with SIGUSR1."""

REPORT_PREFIXES = ("found", "wrong", "per_image")
"""Prefixes of a class name in the keys of a test report: objects_found_NAME, dice_per_image_NAME."""


def split_class_names(names: Sequence[str]) -> list[str]:
    """Reads class names as people type them: as words, as one list in brackets, or with commas.

    >>> split_class_names(["background", "road"]) == split_class_names(["[background,", "road]"])
    True
    >>> split_class_names(["background,road"])
    ['background', 'road']
    """
    text = " ".join(names)
    if "=" in text or not (text.startswith("[") or (len(names) == 1 and "," in text)):
        return list(names)  # NAME=A,B of `nailseg import` merges classes
    return [name.strip(" '\"") for name in text.strip("[] ").split(",")]


def check_class_names(class_names: Sequence[str], option: str = "class names") -> list[str]:
    """Checks class names, which are given by index: the first is the background.

    Args:
        class_names: 2 to `MAX_CLASSES` different names.
        option: what the error message calls them.

    Raises:
        ConfigError: other names, or names that collide with keys of the test report.

    Examples:
        >>> check_class_names(["background", "nail"])
        ['background', 'nail']
    """
    names = list(class_names)
    reserved = {f"{prefix}_{name}" for prefix in REPORT_PREFIXES for name in names}
    if isinstance(class_names, str) or not all(isinstance(name, str) and name.strip() for name in names):
        expected = "a list of names"
    elif not 2 <= len(names) <= MAX_CLASSES:
        expected = f"2 to {MAX_CLASSES} names (background and at least one other class)"
    elif len(set(names)) < len(names):
        expected = "names that differ"
    elif "background" in names[1:]:
        expected = "background as the first name"
    elif "foreground" in names and len(names) > 2:
        expected = "another name than foreground, which in curves is the mean of several classes"
    elif taken := [name for name in names if name in reserved]:
        expected = f"a name other than {taken[0]}, a column of the report for another class"
    else:
        return names
    raise ConfigError(
        f"{option}: expected {expected}, found {class_names!r}. "
        "Give for example [background, nail]: the order is the class index."
    )


class Sample(TypedDict):
    """One row of the data set, ready to be stacked into a `Batch`.

    Attributes:
        image: uint8 (3, H, W), RGB, 0..255. In evaluation resized and padded as `geometry.Resize` says, and
            float32 with fractions of gray levels in validate and test; with `crop` unchanged.
        mask: int64 (H', W'), class index or 255. In training H' = H and W' = W; in evaluation the mask is at
            the image's size inside the padding (fit's validation) or at the mask file's own size (validate
            and test).
        valid_size: int64 (2,), height and width of the image inside the padding.
        row: int64 (), position among the split's rows, which names it whatever rank or worker read it.
    """

    image: Tensor
    mask: Tensor
    valid_size: Tensor
    row: Tensor


class Batch(Sample):
    """Samples of one shape, stacked along a first dimension N.

    Attributes:
        image: uint8 or float32 (N, 3, H, W), 0..255.
        mask: int64 (N, H', W').
        valid_size: int64 (N, 2); in evaluation all rows are equal, because batches hold equal sizes only.
        row: int64 (N,).
    """
