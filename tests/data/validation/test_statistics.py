"""Statistics of a data set, and its fingerprint."""

from __future__ import annotations

from pathlib import Path

from nailseg.data.manifest import load_manifest
from nailseg.data.validation.statistics import compute_fingerprint, compute_statistics, format_statistics
from nailseg.data.validation.validate import validate_rows
from tests.data.planted import write_data_set


def test_statistics_per_split_folder_and_group(tmp_path: Path) -> None:
    csv = write_data_set(tmp_path) / "dataset.csv"
    csv.write_text(csv.read_text().replace(",g1\n", ",g0\n"))
    result = validate_rows(load_manifest(csv), ["background", "nail"])
    statistics = compute_statistics(result.scans, result.mask_encoding)
    assert {kind: [*names] for kind, names in statistics.items()} == {
        "split": ["train", "val"],
        "folder": ["Images"],
        "group": ["g0"],
    }
    assert statistics["split"]["train"]["images"] == 20
    assert statistics["group"]["g0"]["objects"] == 2.0
    lines = format_statistics(statistics).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["split", "train", "20"],
        ["split", "val", "5"],
        ["folder", "Images", "25"],
        ["group", "g0", "2"],
    ]
    assert len({line.index("128 x 96") for line in lines[1:]}) == 1


def test_the_fingerprint_changes_with_paths_splits_and_file_sizes(tmp_path: Path) -> None:
    manifest = load_manifest(write_data_set(tmp_path) / "dataset.csv")
    before = compute_fingerprint(manifest.rows, tmp_path)
    assert compute_fingerprint(manifest.rows[::-1], tmp_path) == before
    assert compute_fingerprint(manifest.rows[1:], tmp_path) != before
    with open(tmp_path / "Images/0.jpg", "ab") as file:
        file.write(b"0")
    assert compute_fingerprint(manifest.rows, tmp_path) != before
