"""Finds images that a data set contains twice: the same file, or nearly the same photograph."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nailseg.data.splitting.near_duplicates import find_near_duplicates, make_thumbnail


class Signature(NamedTuple):
    """What is kept of an image to compare it with others."""

    digest: bytes  # hash of the file's bytes
    thumbnail: np.ndarray  # uint8 (96, 96), grey


class DuplicatePair(NamedTuple):
    """The names of two images that show the same photograph."""

    first: str
    second: str
    exact: bool  # the files have the same bytes; otherwise near-duplicates


def compute_signature(data: bytes, image: np.ndarray) -> Signature:
    """Computes the signature of a file's bytes and its decoded image, uint8 (H, W, 3) RGB."""
    return Signature(hashlib.blake2b(data, digest_size=16).digest(), make_thumbnail(image))


def find_duplicates(signatures: Mapping[str, Signature]) -> list[DuplicatePair]:
    """Compares all images of a data set, given by name.

    Returns:
        Pairs of equal files (each file with the first equal one), then pairs of near-duplicates.
    """
    first: dict[bytes, str] = {}
    originals = {name: first.setdefault(each.digest, name) for name, each in signatures.items()}
    pairs = [DuplicatePair(original, name, True) for name, original in originals.items() if original != name]
    if len(signatures) > 1:
        names = list(signatures)
        for one, other in find_near_duplicates(np.stack([s.thumbnail for s in signatures.values()])).tolist():
            if originals[names[other]] != names[one]:
                pairs.append(DuplicatePair(names[one], names[other], False))
    return pairs
