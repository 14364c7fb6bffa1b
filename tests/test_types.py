"""Class names: what is accepted, and what the error says."""

from __future__ import annotations

import pytest

from nailseg.errors import ConfigError
from nailseg.types import MAX_CLASSES, check_class_names


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("nail", "a list of names"),
        (["background", " "], "a list of names"),
        (["background"], "2 to 254 names"),
        ([str(index) for index in range(MAX_CLASSES + 1)], "2 to 254 names"),
        (["background", "nail", "nail"], "names that differ"),
        (["nail", "background"], "background as the first name"),
        (["background", "foreground", "nail"], "another name than foreground"),
        (["background", "nail", "found_nail"], "a name other than found_nail"),
    ],
)
def test_class_names_that_are_not_accepted(names: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--data\.classes: expected {problem}.*order is the class index"):
        check_class_names(names, "--data.classes")


def test_as_many_classes_as_8_bit_masks_hold() -> None:
    names = [str(index) for index in range(MAX_CLASSES)]
    assert check_class_names(tuple(names)) == names
