"""Mask encodings: given as a mapping, applied, stored and read back."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from nailseg.data.mask_content import MaskContent, count_classes, count_values
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import check_values
from nailseg.errors import ConfigError, DataError, WeightsError

TWO = ["background", "nail"]


def test_a_given_mapping() -> None:
    encoding = MaskEncoding.from_mapping({"0": "background", 128: "ignore", "255": "nail"}, TWO)
    assert encoding.apply(np.array([[0, 128, 255]], np.uint8)).tolist() == [[0, 255, 1]]
    assert check_values(MaskContent("a.png", {0: 9, 128: 9, 255: 9}), encoding) is None
    issue = check_values(MaskContent("a.png", {0: 9, 9: 9}), encoding)
    assert issue is not None
    assert issue.code == "mask-values"
    with pytest.raises(DataError, match="x: expected mask values 0, 128, 255, found also 9"):
        encoding.apply(np.array([[9]], np.uint8), name="x")


def test_colors_in_every_notation() -> None:
    raw = np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 255]]], np.uint8)
    for red, blue in (("#ff0000", "0,0,255"), ("255, 0, 0", "#0000FF"), ((255, 0, 0), [0, 0, 255].__str__())):
        encoding = MaskEncoding.from_mapping({"0,0,0": 0, red: "nail", blue: "ignore"}, TWO)
        assert encoding.apply(raw).tolist() == [[0, 1, 255]]
        assert check_values(MaskContent("a", count_values(raw)), encoding) is None
    with pytest.raises(DataError, match=r"found also \(9, 9, 9\)"):
        encoding.apply(raw * 0 + 9)
    # an all-background file of a colour set has one channel only
    assert encoding.apply(np.zeros((1, 2), np.uint8)).tolist() == [[0, 0]]
    assert count_classes(MaskContent("a", {0: 5}), encoding) == {0: 5}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"0": "background"}, "found none for nail"),
        ({}, "found none for nail"),
        ({"0": "background", "255": "toe"}, "expected one of background, nail, .* found 'toe'"),
        ({"0": "background", "many": "nail"}, "found 'many'"),
        ({"0": "background", "1,2": "nail"}, "found '1,2'"),
        ({"0": "background", "70000": "nail"}, "found '70000'"),
    ],
)
def test_mappings_that_cannot_be_parsed(mapping: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MaskEncoding.from_mapping(mapping, TWO)


def test_json_and_pickle_round_trips() -> None:
    for encoding in (
        MaskEncoding(((0, 0), (255, 1)), ("background", "nail"), antialiased=True),
        MaskEncoding.from_mapping({"#000000": 0, "#ff0000": 1}, TWO),
    ):
        assert MaskEncoding.from_dict(json.loads(json.dumps(encoding.to_dict())), "a") == encoding
        assert pickle.loads(pickle.dumps(encoding)) == encoding


@pytest.mark.parametrize(
    "change",
    [
        {"mapping": [[0, 0], [255, 2]]},
        {"mapping": [[0, 0], [70000, 1]]},
        {"mapping": [["0", 0]]},
        {"mapping": 3},
        {"class_names": None},
        {"smooth": "yes"},
    ],
)
def test_damaged_encodings_of_model_folders_are_refused(change: dict) -> None:
    stored = MaskEncoding(((0, 0), (255, 1)), ("background", "nail")).to_dict()
    with pytest.raises(WeightsError, match=f"model.json: .*{next(iter(change))}"):
        MaskEncoding.from_dict(stored | change, "model.json")
