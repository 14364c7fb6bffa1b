"""`nailseg compare` over per_image.csv files made by hand."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from nailseg.cli.main import main
from nailseg.errors import ConfigError, DataError
from nailseg.evaluation.compare import compare, compare_runs, resample_weights
from nailseg.evaluation.per_image import find_table, read_table

N = 24
TRUTH = np.random.default_rng(0).integers(200, 900, N)


def write(folder: Path, hits, names=("nail",), images=range(N), group="", truth=TRUTH, more=()) -> Path:
    """A run folder whose test counted `hits` of `truth` pixels and ten false alarms in each image."""
    (folder / "test").mkdir(parents=True)
    kinds = ("hits", "false_alarms", "misses")
    lines = [",".join(["image", "group", *(f"{k}_{c}" for c in names for k in kinds), *dict(more)])]
    for n in images:
        counts = [hits[n], 10, truth[n] - hits[n]] * len(names)
        lines.append(
            ",".join(map(str, [f"Images/{n:02}.jpg", group.format(n // 2), *counts, *dict(more).values()]))
        )
    (folder / "test" / "per_image.csv").write_text("\n".join(lines))
    return folder


def shares(seed: int, mean: float) -> np.ndarray:
    """Pixels hit in each image, about `mean` of the truth."""
    return (TRUTH * np.random.default_rng(seed).uniform(mean - 0.1, mean + 0.1, N)).astype(int)


def compared(*folders: Path) -> dict:
    return compare([read_table(find_table(folder)) for folder in folders])[0]


def of(result: dict, number: str) -> dict:
    """The line of the one run that is not the reference."""
    return next(r for r in result["rows"] if r["number"] == number and r["verdict"] != "reference")


def test_numbers_and_intervals_are_those_of_a_plain_loop(tmp_path) -> None:
    a, b = shares(1, 0.7), shares(2, 0.72)
    result = compared(write(tmp_path / "a", a, group="g{}"), write(tmp_path / "b", b, group="g{}"))
    assert (result["n_images"], result["n_groups"]) == (N, N // 2)
    pooled, mean = [], []
    for weights in resample_weights(N // 2, 1000, 0):
        chosen = [n for n in range(N) for _ in range(weights[n // 2])]
        parts = [(2 * h[chosen], (h + TRUTH + 10)[chosen]) for h in (a, b)]
        pooled.append(parts[1][0].sum() / parts[1][1].sum() - parts[0][0].sum() / parts[0][1].sum())
        mean.append((parts[1][0] / parts[1][1]).mean() - (parts[0][0] / parts[0][1]).mean())
    for number, values in (("dice", pooled), ("dice_per_image", mean)):
        between = [of(result, number)[end] for end in ("low", "high")]
        assert between == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12)
    assert of(result, "iou")["value"] == pytest.approx(b.sum() / (TRUTH + 10).sum())
    pooled = [2 * h.sum() / (h + TRUTH + 10).sum() for h in (a, b)]
    assert of(result, "dice")["difference"] == pytest.approx(pooled[1] - pooled[0])


def test_a_better_run_is_shown_better_and_the_other_way_round(tmp_path) -> None:
    low, high = write(tmp_path / "low", shares(1, 0.6)), write(tmp_path / "high", shares(2, 0.85))
    for number in ("dice", "iou", "dice_per_image"):
        assert of(compared(low, high), number)["verdict"] == "better"
        assert of(compared(high, low), number)["verdict"] == "worse"
    assert [compared(low, high)["images"][0][word] for word in ("better", "worse", "equal")] == [1, 0, 0]


def test_identical_runs_differ_by_exactly_nothing(tmp_path) -> None:
    a, b = write(tmp_path / "a", shares(1, 0.7)), write(tmp_path / "b", shares(1, 0.7))
    for row in compared(a, b)["rows"][1::2]:
        assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
        assert row["verdict"] == "no difference shown"


def test_one_group_shows_nothing_however_large_the_difference(tmp_path) -> None:
    runs = [write(tmp_path / str(mean), shares(1, mean), group="hand") for mean in (0.3, 0.9)]
    row = of(compared(*runs), "dice")
    assert (row["difference"] > 0.3, row["low"], row["verdict"]) == (True, None, "no difference shown")
    assert "groups: only 1," in compare_runs(runs, tmp_path / "out")


def test_boundaries_count_where_both_have_them(tmp_path) -> None:
    edges = [(("boundary_hits_nail", hit), ("boundary_union_nail", 20)) for hit in (5, 9)]
    a, b = (write(tmp_path / name, TRUTH, more=edge) for name, edge in zip("ab", edges, strict=True))
    row = of(compared(a, b), "boundary_iou")
    assert (row["value"], row["verdict"]) == (pytest.approx(9 / 20), "better")
    row = of(compared(a, write(tmp_path / "old", TRUTH)), "boundary_iou")
    assert (row["value"], row["difference"], row["verdict"]) == (None, None, "no difference shown")


def test_images_without_the_class_say_nothing_of_dice_per_image(tmp_path) -> None:
    truth = np.where(np.arange(N) < 20, TRUTH, 0)
    hits, nothing = truth // 2, np.zeros(N, int)
    a, b = (write(tmp_path / name, hits, truth=truth) for name in "ab")
    mean = (2 * hits / (hits + truth + 10))[:20].mean()
    assert of(compared(a, b), "dice_per_image")["value"] == pytest.approx(mean)
    absent = compared(*(write(tmp_path / name, nothing, truth=nothing) for name in "cd"))
    assert of(absent, "dice_per_image")["value"] is None
    assert absent["images"][0]["better"] is None


def test_the_verb_writes_table_json_and_picture_and_overwrites_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("runs/a"), shares(1, 0.6), names=("nail", "<skin>"))
    write(Path("runs/b"), shares(2, 0.8), names=("nail", "<skin>"), images=range(20))
    for _ in range(2):
        assert main(["compare", "runs/a", "runs/b/test", "--seed", "3"]) == 0
    assert "4 images of runs/a/test/per_image.csv" in capsys.readouterr().out
    first, second = Path("runs/compare-a-b"), Path("runs/compare-a-b-2")
    for name in ("compare.json", "compare.csv", "compare.svg"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    result = json.loads((first / "compare.json").read_text())
    with (first / "compare.csv").open() as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [row["verdict"] for row in result["rows"]]
    texts = {text.text for text in ElementTree.parse(first / "compare.svg").findall(".//{*}text")}
    assert {f"{row['class']}  {row['number']}" for row in result["rows"]} <= texts


def test_the_newest_test_of_a_run_counts(tmp_path) -> None:
    for name in ("test", "test-2", "test-10", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "per_image.csv").touch()
    assert find_table(tmp_path) == tmp_path / "test-10" / "per_image.csv"


def test_what_does_not_belong_together_is_refused_by_name(tmp_path) -> None:
    a = write(tmp_path / "a", shares(1, 0.7))
    with pytest.raises(DataError, match=r"b.test.per_image.csv: expected classes nail as in .*found skin"):
        compared(a, write(tmp_path / "b", shares(1, 0.7), names=("skin",)))
    parts = [write(tmp_path / name, TRUTH, images=[n]) for n, name in enumerate("cd")]
    with pytest.raises(DataError, match="expected common images, found none"):
        compared(*parts)
    with pytest.raises(DataError, match=r"found other masks for Images/07.jpg \(1 images"):
        compared(a, write(tmp_path / "e", shares(1, 0.7), truth=TRUTH + (np.arange(N) == 7)))
    with pytest.raises(ConfigError, match="expected a run folder"):
        find_table(tmp_path)
    empty = tmp_path / "per_image.csv"
    for text, message in (
        ("image,mask\na,b\n", "expected columns image, hits_CLASS; found"),
        ("image,hits_x\na,1\na,2\n", "expected each image once"),
        ("image,hits_x,false_alarms_x,misses_x\na,1,2,many\n", "expected numbers in hits_"),
    ):
        empty.write_text(text)
        with pytest.raises(DataError, match=message):
            compared(empty, empty)


def test_runs_of_one_name_are_told_apart(tmp_path, capsys) -> None:
    places = [
        write(tmp_path / place / "b0", shares(seed, 0.6 + 0.1 * seed)) for seed, place in enumerate("xyz")
    ]
    assert main(["compare", *map(str, places), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    names = ["x/b0/test", "y/b0/test", "z/b0/test"]
    assert [row["run"] for row in result["rows"][:3]] == names
    assert [row["run"] for row in result["images"]] == names[1:]
    values = [row["value"] for row in result["rows"][:3]]
    assert values == sorted(values)
    texts = [text.text for text in ElementTree.parse(tmp_path / "out" / "compare.svg").findall(".//{*}text")]
    assert [texts.count(f"nail  dice  {name}") for name in names] == [0, 1, 1]
    shown = capsys.readouterr().out
    assert f"y/b0/test: {places[1]}/test/per_image.csv" in shown, "which test was taken"
    twice = compared(places[0], places[0])
    assert len({row["run"] for row in twice["rows"]}) == 2


def test_a_run_without_numbers_shifts_no_colour(tmp_path) -> None:
    nothing = np.zeros(N, int)
    runs = [write(tmp_path / name, nothing, truth=nothing) for name in "abc"]
    table = runs[1] / "test" / "per_image.csv"
    table.write_text(table.read_text().replace(",10,", ",0,"))  # no truth, nothing found: no ratio at all
    compare_runs(runs, tmp_path / "out")
    texts = {text.text for text in ElementTree.parse(tmp_path / "out" / "compare.svg").findall(".//{*}text")}
    assert {"b", "c"} <= texts
