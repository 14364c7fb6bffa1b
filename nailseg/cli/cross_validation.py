"""`nailseg train --folds K`: cross-validation, in which every image is tested exactly once."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nailseg.checkpoints import model_folder
from nailseg.cli.arguments import CommandLine
from nailseg.cli.runner import signals_call
from nailseg.data.assign import SPLITS, assign_folds, assign_splits
from nailseg.data.issues import DataIssuesError, format_issues
from nailseg.data.manifest import Row, load_manifest, write_manifest
from nailseg.errors import ConfigError, DataError
from nailseg.evaluation.per_image import NUMBERS, find_table, read_counts, read_table, write_csv
from nailseg.metrics.confusion import iou
from nailseg.metrics.image_counts import class_ratios, percentile_interval, resample_weights
from nailseg.model_info import RUNS

log = logging.getLogger("nailseg")

FOLD_VARIABLE = "NAILSEG_FOLD"  # environment of the folds' processes; this one logs how to continue


def train_folds(line: CommandLine) -> int:
    """Trains and tests each fold in its own process, pools the tests, and returns the exit code.

    The folder runs/NAME-folds holds the folds' CSVs, their run folders fold-1 …, and test/; `--resume FOLDER`
    skips what is finished there. ConfigError for options that make no sense, or too few groups; DataError for
    rows with errors.
    """
    given, resumed = line.option("folds") or "", line.option("resume")
    if not given.isdecimal() or int(given) < 2:
        raise ConfigError(f"expected --folds of 2 or more, found {given}.")
    if "LOCAL_RANK" in os.environ:
        raise ConfigError("--folds starts its own processes: give --trainer.devices N instead of torchrun.")
    if (table := line.value("data.csv")) is None:
        raise ConfigError("--folds: expected --data.csv, found none. Make one with: nailseg index DIR")
    folds, root = int(given), Path(line.value("data.root") or Path(table).parent).absolute()
    if resumed:
        folder = Path(resumed)
        if (found := len(list(folder.glob("fold-*.csv")))) != folds:
            raise ConfigError(f"--resume {folder}: expected {folds} files fold-K.csv, found {found}.")
    else:
        split = split_folds(_read_rows(line, table, root), folds)
        name = line.option("name") or line.run_name("fit")
        folder = model_folder.unique_path(Path(line.option("runs") or RUNS, f"{name}-folds"))
        folder.mkdir(parents=True)
        for fold, rows in enumerate(split, start=1):
            write_manifest(folder / f"fold-{fold}.csv", rows)
    line = line.with_options(folds=None, name=None, resume=None, runs=None, data__root=root)
    for fold in range(1, folds + 1):
        run = folder / f"fold-{fold}"
        log.info("fold %d of %d%s", fold, folds, ", finished before" if _is_finished(run) else "")
        code = 0 if _is_finished(run) else _train(_fold_options(line, run).arguments())
        if code and not resumed and not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder)  # an option was refused: nothing was trained
            return code
        if code or not _is_finished(run):
            log.error("fold %d did not finish. To continue: the same command with --resume %s", fold, folder)
            return code or 1
    log.info("%s", pool_tests(folder, folds))
    return 0


def _read_rows(line: CommandLine, table: str, root: Path) -> Sequence[Row]:
    """The CSV's rows; DataError for rows with errors, unless data.skip_bad or data.allow leaves them out."""
    manifest = load_manifest(table, root, strict=False)
    skip_bad, allowed = line.parsed("data.skip_bad"), line.parsed("data.allow") or ()
    errors = [issue for issue in manifest.issues if not skip_bad and issue.code not in allowed]
    if errors:
        raise DataIssuesError(table, errors)
    if not manifest.rows:
        raise DataError(f"{table}: expected rows without errors, found none. Correct the CSV.")
    if manifest.issues:
        log.info("left out:\n%s", format_issues(manifest.issues))
    return manifest.rows


def split_folds(rows: Sequence[Row], folds: int) -> list[list[Row]]:
    """Assigns new splits to all rows, one list per fold: part k is the test of fold k.

    Groups stay whole, folders are split in proportion. Of the other parts, val takes the share that it has in
    the rows given, at least a group. The parts depend on the rows alone, so that runs with any seed or
    network can be compared. ConfigError if a fold has no row for train, val or test.
    """
    groups, strata = [row.group for row in rows], [row.folder for row in rows]
    val = min(max(sum(row.split == "val" for row in rows), 1) / len(rows), 0.5)
    folded = []
    for fold, parts in enumerate(assign_folds(groups, strata, folds, test=0.0), start=1):
        rest = [n for n, part in enumerate(parts) if part != "val"]
        # another seed than the parts': the front of one order must not be the front of the next
        splits = assign_splits([groups[n] for n in rest], [strata[n] for n in rest], val, 0.0, 1000 + fold)
        split_of = dict(zip(rest, splits, strict=True))
        folded.append([replace(row, split=split_of.get(n, "test")) for n, row in enumerate(rows)])
        if missing := set(SPLITS) - {row.split for row in folded[-1]}:
            raise ConfigError(
                f"--folds {folds}: expected groups enough for train, val and test of every fold, found "
                f"{len(set(groups))} and none for {min(missing)} in fold {fold}. Take fewer folds."
            )
    return folded


def pool_tests(folder: Path, folds: int) -> str:
    """Writes test/per_image.csv with a column fold, and test/metrics.json; returns the numbers as a table.

    The numbers are those of all images together, with bootstrap intervals over images. Beside them are those
    of each fold, their mean and standard deviation (n - 1; no standard error: folds share training rows).
    """
    tests = {fold: find_table(folder / f"fold-{fold}") for fold in range(1, folds + 1)}
    rows = pd.concat({fold: read_table(path).rows for fold, path in tests.items()}, names=["fold"])
    target = model_folder.unique_path(folder / "test")
    target.mkdir()
    write_csv(rows.reset_index("fold"), target / "per_image.csv")
    table = read_table(target / "per_image.csv")
    images = sorted(table.rows.index)  # the intervals do not depend on which fold tested which image
    fold_of = table.rows.loc[images, "fold"].astype(int).to_numpy()
    # one weighting of the images for all folds, and one for each
    weights = np.stack([fold_of > 0, *(fold_of == fold for fold in tests)])
    resamples = resample_weights(len(images))
    numbers: dict[str, list[float]] = {}
    for name in table.class_names:
        counts = read_counts(table, images, name)
        values, resampled = (class_ratios(counts, torch.from_numpy(w).double()) for w in (weights, resamples))
        for number in NUMBERS:
            ends = percentile_interval(resampled[number].numpy())
            numbers[f"{number}_{name}"] = [*values[number].tolist(), *ends]
    reports = [json.loads(path.with_name("metrics.json").read_text()) for path in tests.values()]
    matrix = torch.tensor([report["confusion_matrix"] for report in reports])
    # per_image.csv does not count the background, so nothing can be resampled for miou
    numbers["miou"] = [*(iou(m).nanmean().item() for m in (matrix.sum(0), *matrix)), np.nan, np.nan]
    shown = pd.DataFrame.from_dict(numbers, "index", columns=["pooled", *tests, "low", "high"])
    each = shown[[*tests]]  # undefined folds are left out of mean and standard deviation
    shown = shown.assign(mean=each.mean(axis=1), std=each.std(axis=1))
    found = shown.astype(object).where(shown.notna(), None).to_dict("index")
    summary = {"n_images": len(rows), "classes": reports[0]["classes"]}
    summary |= {"confusion_matrix": matrix.sum(0).tolist(), "intervals": {}, "folds": {}}
    for key, row in found.items():
        summary[key] = row["pooled"]
        summary["intervals"][key] = None if row["low"] is None else [row["low"], row["high"]]
        summary["folds"][key] = {"mean": row["mean"], "std": row["std"], "values": [row[n] for n in tests]}
    (target / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    titles = {"low": "95 % from", "high": "to"} | {fold: f"fold {fold}" for fold in tests}
    shown = shown[["pooled", "low", "high", "mean", "std", *tests]].rename(columns=titles)
    text = shown.to_string(float_format="{:.4f}".format, na_rep="undefined")
    return f"{len(rows)} images, each tested once\n{text}\nwritten: {target}"


def _is_finished(run: Path) -> bool:
    """Whether a run is complete: the model folder is what it writes last."""
    return (run / "model").is_dir() and any(run.glob("test*/per_image.csv"))


def _fold_options(line: CommandLine, run: Path) -> CommandLine:
    """Adds a fold's CSV and its run folder, which is continued if it has a checkpoint."""
    line = line.with_options(data__csv=f"{run}.csv")
    if (run / "checkpoints" / "last.ckpt").is_file():
        return line.with_options(resume=run)
    if run.exists():  # interrupted before its first checkpoint
        run.rename(model_folder.unique_path(run.with_name(f"{run.name}-old")))
    return line.with_options(runs=run.parent, name=run.name)


def _train(args: list[str]) -> int:
    """Runs nailseg.train in its own process, so that several devices work in it as usual; its exit code."""
    command = [sys.executable, "-m", "nailseg.train", *args]
    received: list[int] = []
    children: list[subprocess.Popen] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    # not `signals_exit`: an exception while Popen starts the process would leave it running alone
    with signals_call(forward), subprocess.Popen(command, env=os.environ | {FOLD_VARIABLE: "1"}) as child:
        children.append(child)
        if received:
            child.send_signal(received[0])
        code = child.wait()  # until it has saved its checkpoint
    return 128 + received[0] if received else code
