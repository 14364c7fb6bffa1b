"""What stands on both sides of a split: groups, pictures, near twins; and pictures that stand there twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nailseg.data.dealing import SPLITS
from nailseg.data.faults import Fault
from nailseg.data.looking import Finding
from nailseg.data.manifest import Row
from nailseg.data.twins import find_twins

SPLIT_ANEW = "Split anew with nailseg index, or leave these rows out (--skip-bad)."


def find_pairs(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    """Images that are the same or nearly.

    Returns:
        (code, image, other image): `image-split` for equal bytes, `twin-split` for near twins.
    """
    first: dict[bytes, str] = {}
    pairs = []
    for finding in findings:
        if finding.digest is not None:
            original = first.setdefault(finding.digest, finding.row.image)
            if original != finding.row.image:
                pairs.append(("image-split", original, finding.row.image))
    shown = [(f.row.image, f.thumbnail) for f in findings if f.thumbnail is not None]
    if len(shown) > 1:
        known = {(one, other) for _, one, other in pairs}
        for one, other in find_twins(np.stack([small for _, small in shown])).tolist():
            names = shown[one][0], shown[other][0]
            if names not in known:
                pairs.append(("twin-split", *names))
    return pairs


def judge_pairs(pairs: Sequence[tuple[str, str, str]], splits: dict[str, str]) -> list[Fault]:
    """Faults of pairs, named after the row nearer to training: what measures should stay.

    Args:
        pairs: of `find_pairs`.
        splits: split of each image that counts; pairs with others are passed over.
    """
    faults = []
    for code, one, other in pairs:
        if one not in splits or other not in splits:
            continue
        if splits[one] == splits[other]:
            if code == "image-split":
                message = f"expected each image once, found the same bytes as {one}"
                faults.append(Fault("doubled-image", other, message, "Delete one of the two rows."))
            continue
        learnt, measured = sorted((one, other), key=lambda image: SPLITS.index(splits[image]))
        what = "the same picture" if code == "image-split" else "a near twin"
        message = (
            f"expected a {splits[learnt]} picture that no other split has, "
            f"found {what} in {splits[measured]}: {measured}"
        )
        faults.append(Fault(code, learnt, message, SPLIT_ANEW))
    return faults


def judge_groups(rows: Sequence[Row]) -> list[Fault]:
    """Groups in several splits, one fault per row that is not on the side nearest to the test."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.group, set()).add(row.split)
    faults = []
    for row in rows:
        last = max(found[row.group], key=SPLITS.index)
        if row.split != last:
            message = f"expected group {row.group} in one split, found it in {row.split} and {last}"
            faults.append(Fault("group-split", row.image, message, SPLIT_ANEW))
    return faults
