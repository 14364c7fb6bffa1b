"""`nailseg compare` over per_image.csv files made by hand."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch

from nailseg.cli.main import main
from nailseg.data.manifest import Row
from nailseg.errors import ConfigError, DataError
from nailseg.evaluation.compare import compare, compare_runs
from nailseg.evaluation.per_image import NUMBERS, find_table, image_table, read_table, write_csv
from nailseg.metrics.image_counts import count_images, resample_weights, summarize

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


def test_numbers_and_intervals_match_a_plain_loop(tmp_path) -> None:
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


def test_better_and_worse_runs_get_their_verdicts(tmp_path) -> None:
    low, high = write(tmp_path / "low", shares(1, 0.6)), write(tmp_path / "high", shares(2, 0.85))
    for number in ("dice", "iou", "dice_per_image"):
        assert of(compared(low, high), number)["verdict"] == "better"
        assert of(compared(high, low), number)["verdict"] == "worse"
    assert [compared(low, high)["images"][0][word] for word in ("better", "worse", "equal")] == [1, 0, 0]


def test_identical_runs_have_no_difference(tmp_path) -> None:
    a, b = write(tmp_path / "a", shares(1, 0.7)), write(tmp_path / "b", shares(1, 0.7))
    for row in compared(a, b)["rows"][1::2]:
        assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
        assert row["verdict"] == "no difference shown"


def test_one_group_has_no_interval(tmp_path) -> None:
    runs = [write(tmp_path / str(mean), shares(1, mean), group="hand") for mean in (0.3, 0.9)]
    row = of(compared(*runs), "dice")
    assert (row["difference"] > 0.3, row["low"], row["verdict"]) == (True, None, "no difference shown")
    assert "groups: only 1," in compare_runs(runs[0], runs[1:], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "part", "whole"),
    [
        ("boundary_iou", "boundary_hits", "boundary_union"),
        ("surface_dice", "surface_hits", "surface_total"),
        ("instance_recall", "objects_found", "objects"),
    ],
)
def test_numbers_of_newer_columns_are_compared_where_both_have_them(tmp_path, number, part, whole) -> None:
    columns = [((f"{part}_nail", hits), (f"{whole}_nail", 20)) for hits in (5, 9)]
    a, b = (write(tmp_path / name, TRUTH, more=more) for name, more in zip("ab", columns, strict=True))
    row = of(compared(a, b), number)
    assert (row["value"], row["verdict"]) == (pytest.approx(9 / 20), "better")
    old = write(tmp_path / "old", TRUTH)
    row = of(compared(a, old), number)
    assert (row["value"], row["difference"], row["verdict"]) == (None, None, "no difference shown")
    assert number not in {row["number"] for row in compared(old, old)["rows"]}


def test_numbers_are_those_of_the_test(tmp_path) -> None:
    """What compare reads from per_image.csv is what summarize computes from the counts themselves."""
    prediction, target = torch.randint(
        0, 3, (2, 6, 4, 4), generator=torch.Generator().manual_seed(0)
    ).unbind()
    prediction, target = (m.repeat_interleave(8, 1).repeat_interleave(8, 2) for m in (prediction, target))
    logits = torch.nn.functional.one_hot(prediction, 3).permute(0, 3, 1, 2).float()
    counts, names = count_images(logits, target, torch.arange(6)), ["background", "nail", "ring"]
    rows = [Row(f"{n}.jpg", f"{n}.png", "test", "") for n in range(6)]
    (tmp_path / "run" / "test").mkdir(parents=True)
    write_csv(image_table(counts, names, rows), tmp_path / "run" / "test" / "per_image.csv")
    summary = summarize(counts, names)
    found = compared(tmp_path / "run", tmp_path / "run")["rows"]
    assert len(found) == 2 * 2 * len(NUMBERS)
    for row in found:
        assert row["value"] == pytest.approx(summary[f"{row['number']}_{row['class']}"], abs=1e-15), row


def test_images_without_the_class_are_left_out_of_dice_per_image(tmp_path) -> None:
    truth = np.where(np.arange(N) < 20, TRUTH, 0)
    hits, nothing = truth // 2, np.zeros(N, int)
    a, b = (write(tmp_path / name, hits, truth=truth) for name in "ab")
    mean = (2 * hits / (hits + truth + 10))[:20].mean()
    assert of(compared(a, b), "dice_per_image")["value"] == pytest.approx(mean)
    absent = compared(*(write(tmp_path / name, nothing, truth=nothing) for name in "cd"))
    assert of(absent, "dice_per_image")["value"] is None
    assert absent["images"][0]["better"] is None


def test_the_command_writes_table_json_and_drawing_and_overwrites_nothing(
    tmp_path, monkeypatch, capsys
) -> None:
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


def test_the_newest_test_of_a_run_is_found(tmp_path) -> None:
    for name in ("test", "test-2", "test-10", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "per_image.csv").touch()
    assert find_table(tmp_path) == tmp_path / "test-10" / "per_image.csv"


def test_incomparable_tables_are_errors(tmp_path) -> None:
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
        ("", "found no row"),
        ("image,hits_x\na,1\nb,2,3,4\n", "expected a CSV of equally long rows"),
        ("image,hits_x,false_alarms_x,misses_x\na,1,2,many\n", "expected numbers in hits_"),
    ):
        empty.write_text(text)
        with pytest.raises(DataError, match=message):
            compared(empty, empty)


def test_runs_with_the_same_name_get_unique_names(tmp_path, capsys) -> None:
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


def test_a_run_without_numbers_keeps_the_colors_of_the_others(tmp_path) -> None:
    nothing = np.zeros(N, int)
    runs = [write(tmp_path / name, nothing, truth=nothing) for name in "abc"]
    table = runs[1] / "test" / "per_image.csv"
    table.write_text(table.read_text().replace(",10,", ",0,"))  # no truth, nothing found: no ratio at all
    compare_runs(runs[0], runs[1:], out=tmp_path / "out")
    texts = {text.text for text in ElementTree.parse(tmp_path / "out" / "compare.svg").findall(".//{*}text")}
    assert {"b", "c"} <= texts
