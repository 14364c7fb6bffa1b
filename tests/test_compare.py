"""`nailseg compare` over per_image.csv files made by hand."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from nailseg.cli import main
from nailseg.compare import compare, compare_runs, interval, resample_weights
from nailseg.errors import ConfigError, DataError
from nailseg.image_table import find_table, read_table

N = 24
TRUTH = np.random.default_rng(0).integers(200, 900, N)


def write(
    folder: Path, hits, classes=("nail",), images=None, group=lambda n: "", truth=TRUTH, more=None
) -> Path:
    """A run folder whose test counted `hits` of `truth` pixels and ten false alarms in each image."""
    test = folder / "test"
    test.mkdir(parents=True)
    rows = []
    for n in range(N) if images is None else images:
        row = {"image": f"Images/{n:02}.jpg", "mask": f"Masks/{n:02}.png", "group": group(n)}
        for name in classes:
            row |= {f"hits_{name}": hits[n], f"false_alarms_{name}": 10, f"misses_{name}": truth[n] - hits[n]}
        rows.append(row | (more(n) if more else {}))
    with (test / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
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
    pairs = {"group": lambda n: f"g{n // 2}"}
    result = compared(write(tmp_path / "a", a, **pairs), write(tmp_path / "b", b, **pairs))
    assert (result["n_images"], result["n_groups"]) == (N, N // 2)
    drawn = resample_weights(N // 2, 1000, 0)
    assert (drawn.shape, drawn.dtype) == ((1000, N // 2), np.int64)
    assert (drawn.sum(1) == N // 2).all()
    pooled, mean = [], []
    for weights in drawn:
        chosen = [n for n in range(N) for _ in range(weights[n // 2])]
        dice = [2 * h[chosen].sum() / (h[chosen] + TRUTH[chosen] + 10).sum() for h in (a, b)]
        each = [(2 * h[chosen] / (h[chosen] + TRUTH[chosen] + 10)).mean() for h in (a, b)]
        pooled.append(dice[1] - dice[0])
        mean.append(each[1] - each[0])
    for number, values in (("dice", pooled), ("dice_per_image", mean)):
        row = of(result, number)
        assert (row["low"], row["high"]) == pytest.approx(
            tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12
        )
    assert of(result, "iou")["value"] == pytest.approx(b.sum() / (TRUTH + 10).sum())
    assert of(result, "dice")["difference"] == pytest.approx(
        2 * b.sum() / (b + TRUTH + 10).sum() - 2 * a.sum() / (a + TRUTH + 10).sum()
    )
    assert interval(np.arange(101.0), 0.5) == (25, 75)


def test_a_better_run_is_shown_better_and_the_other_way_round(tmp_path) -> None:
    low, high = write(tmp_path / "low", shares(1, 0.6)), write(tmp_path / "high", shares(2, 0.85))
    for number in ("dice", "iou", "dice_per_image"):
        assert of(compared(low, high), number)["verdict"] == "better"
        assert of(compared(high, low), number)["verdict"] == "worse"
    assert compared(low, high)["images"] == [
        {"class": "nail", "run": "high", "better": 1.0, "worse": 0.0, "equal": 0.0}
    ]


def test_identical_runs_differ_by_exactly_nothing(tmp_path) -> None:
    a, b = write(tmp_path / "a", shares(1, 0.7)), write(tmp_path / "b", shares(1, 0.7))
    for row in compared(a, b)["rows"][1::2]:
        assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
        assert row["verdict"] == "no difference shown"


def test_one_group_shows_nothing_however_large_the_difference(tmp_path) -> None:
    one = {"group": lambda n: "hand"}
    runs = write(tmp_path / "a", shares(1, 0.3), **one), write(tmp_path / "b", shares(2, 0.9), **one)
    row = of(compared(*runs), "dice")
    assert row["difference"] > 0.3
    assert (row["low"], row["verdict"]) == (None, "no difference shown")
    assert "only 1 groups" in compare_runs(runs, tmp_path / "out")


def test_boundaries_count_where_both_have_them(tmp_path) -> None:
    def edge(hit):
        return {"more": lambda n: {"boundary_hits_nail": hit, "boundary_union_nail": 20 + n}}

    a, b = write(tmp_path / "a", shares(1, 0.7), **edge(5)), write(tmp_path / "b", shares(2, 0.7), **edge(9))
    row = of(compared(a, b), "boundary_iou")
    assert row["value"] == pytest.approx(9 * N / sum(range(20, 20 + N)))
    assert row["verdict"] == "better"
    row = of(compared(a, write(tmp_path / "old", shares(2, 0.7))), "boundary_iou")
    assert (row["value"], row["difference"], row["verdict"]) == (None, None, "no difference shown")


def test_images_without_the_class_say_nothing_of_dice_per_image(tmp_path) -> None:
    truth = np.where(np.arange(N) < 20, TRUTH, 0)
    hits = np.minimum(shares(1, 0.7), truth)
    row = of(
        compared(write(tmp_path / "a", hits, truth=truth), write(tmp_path / "b", hits, truth=truth)),
        "dice_per_image",
    )
    assert row["value"] == pytest.approx((2 * hits / (hits + truth + 10))[:20].mean())
    nothing = np.zeros(N, int)
    absent = compared(
        write(tmp_path / "c", nothing, truth=nothing), write(tmp_path / "d", nothing, truth=nothing)
    )
    assert of(absent, "dice_per_image")["value"] is None
    assert absent["images"][0]["better"] is None


def test_the_verb_writes_table_json_and_picture_and_overwrites_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("runs/a"), shares(1, 0.6), classes=("nail", "<skin>"))
    write(Path("runs/b"), shares(2, 0.8), classes=("nail", "<skin>"), images=range(20))
    for _ in range(2):
        assert main(["compare", "runs/a", "runs/b/test", "--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert "4 images of runs/a/test/per_image.csv" in shown
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
        write(tmp_path / name, shares(1, 0.7))
        (tmp_path / name / "test" / "per_image.csv").rename(tmp_path / name / "per_image.csv")
    assert find_table(tmp_path) == tmp_path / "test-10" / "per_image.csv"


def test_what_does_not_belong_together_is_refused_by_name(tmp_path) -> None:
    a = write(tmp_path / "a", shares(1, 0.7))
    with pytest.raises(DataError, match=r"b.test.per_image.csv: expected classes nail as in .*found skin"):
        compared(a, write(tmp_path / "b", shares(1, 0.7), classes=("skin",)))
    with pytest.raises(DataError, match="expected common images, found none"):
        compared(
            write(tmp_path / "c", shares(1, 0.7), images=range(3)),
            write(tmp_path / "d", shares(1, 0.7), images=range(3, 6)),
        )
    other = TRUTH + (np.arange(N) == 7)
    with pytest.raises(DataError, match=r"found other masks for Images/07.jpg \(1 images"):
        compared(a, write(tmp_path / "e", shares(1, 0.7), truth=other))
    with pytest.raises(ConfigError, match="expected a run folder"):
        find_table(tmp_path)
    empty = tmp_path / "per_image.csv"
    for text, message in (
        ("image,mask\na,b\n", "expected columns image, hits_CLASS; found"),
        ("image,hits_x\na,1\na,2\n", "expected each image once"),
        ("image,hits_x\na,1\n", "expected numbers in hits_"),
        ("image,hits_x,false_alarms_x,misses_x\na,1,2,many\n", "expected numbers in hits_"),
    ):
        empty.write_text(text)
        with pytest.raises(DataError, match=message):
            compared(empty, empty)
