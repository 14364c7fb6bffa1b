"""The main job through the real command line: fit, validate, test, predict, resume, two processes."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import nailseg
from nailseg import train
from nailseg.checkpoints import model_folder
from nailseg.cli.lightning import NailsegCLI
from nailseg.cli.main import main
from nailseg.training import task
from tests.conftest import assert_same_metrics


def options(drawn, tiny_folder) -> list[str]:
    return [
        f"--data.csv={drawn / 'dataset.csv'}",
        f"--model.weights={tiny_folder}",
        "--data.size=64",
        "--data.batch_size=4",
        "--data.workers=0",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


@pytest.fixture(scope="module")
def run(drawn, tiny_folder, tmp_path_factory):
    """A finished run of nailseg.train, in a folder of its own."""
    here = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("WANDB_MODE", "disabled")
        assert train.main([*options(drawn, tiny_folder), "--name=tiny"]) == 0
    return here / "runs" / "tiny"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


def test_run_folder_keeps_its_promises(run, drawn) -> None:
    for name in (
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "model/config.json",
        "model/model.safetensors",
        "model/preprocessor_config.json",
        "model/nailseg.json",
        "model/README.md",
        "test/metrics.json",
        "test/per_image.csv",
        "test/report.html",
        "images/epoch_000.png",
        "images/epoch_001.png",
    ):
        assert (run / name).stat().st_size > 0, name
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_metrics_json_has_the_promised_keys(run, drawn) -> None:
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    with (drawn / "dataset.csv").open() as file:
        n_test = sum(row["split"] == "test" for row in csv.DictReader(file))
    assert metrics["n_images"] == n_test
    assert metrics["classes"] == ["background", "nail"]
    for key in ("iou_nail", "dice_nail", "dice_per_image_nail", "boundary_iou_nail", "miou"):
        assert 0 <= metrics[key] <= 1
    info = model_folder.read_info(run / "model")
    assert info.metrics == metrics
    assert info.mask_values
    assert info.image_size == 64


def test_metrics_csv_has_one_row_per_epoch(run) -> None:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"val/iou_nail", "val/dice_nail", "val/miou", "val/loss", "train/loss", "lr"} <= set(rows[0])


def test_metrics_are_those_of_the_model_folder_counted_by_hand(run, drawn) -> None:
    segment = nailseg.load(run / "model", device="cpu")
    hit = truth = found = 0
    with (drawn / "dataset.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                mask = cv2.imread(str(drawn / row["mask"]), cv2.IMREAD_UNCHANGED) > 0
                predicted = segment(drawn / row["image"]).mask == 1
                hit, truth, found = (
                    hit + (mask & predicted).sum(),
                    truth + mask.sum(),
                    found + predicted.sum(),
                )
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert metrics["dice_nail"] == pytest.approx(2 * hit / (truth + found), abs=1e-6)


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_runs_config_evaluates_its_best(run, verb: str, tmp_path) -> None:
    assert main([verb, f"--config={run / 'config.yaml'}"]) == 0
    split = {"validate": "val", "test": "test"}[verb]
    found = json.loads((tmp_path / "runs" / "tiny" / split / "metrics.json").read_text())
    assert found["n_images"] == 6
    if verb == "test":
        assert_same_metrics(found, json.loads((run / "test" / "metrics.json").read_text()))


@pytest.mark.parametrize("start", [lambda args: main(["fit", *args]), train.main], ids=["fit", "train"])
def test_a_runs_config_trains_again(run, start, tmp_path) -> None:
    assert start([f"--config={run / 'config.yaml'}", "--trainer.max_epochs=1"]) == 0
    again = tmp_path / "runs" / "tiny"
    assert (again / "model" / "model.safetensors").exists()
    saved = yaml.safe_load((again / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 1


def test_checkpoint_and_model_folder_test_alike_without_config(run, drawn, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = [f"--data.csv={drawn / 'dataset.csv'}", "--trainer.accelerator=cpu", "--data.workers=0"]
    assert main(["test", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", *data, "--name=a"]) == 0
    assert main(["test", f"--model.weights={run / 'model'}", *data, "--name=b"]) == 0
    expected = json.loads((run / "test" / "metrics.json").read_text())
    for name in "ab":
        found = json.loads((tmp_path / "runs" / name / "test" / "metrics.json").read_text())
        assert_same_metrics(found, expected)
    image = next((drawn / "Images" / "3").glob("*"))
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert main(["predict", str(image), "--model", str(checkpoint), "--out", str(tmp_path / "masks")]) == 0
    assert (tmp_path / "masks" / f"{image.stem}.png").exists()


def test_a_second_test_writes_beside_the_first(run, drawn, tmp_path) -> None:
    args = [
        "test",
        f"--model.weights={run / 'model'}",
        f"--data.csv={drawn / 'dataset.csv'}",
        "--trainer.accelerator=cpu",
    ]
    assert main(args) == main(args) == 0
    assert sorted(p.name for p in (tmp_path / "runs" / "tiny").iterdir()) == ["test", "test-2"]


def test_resume_goes_on_in_the_same_folder(run, tmp_path) -> None:
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(run, copy)
    weights = yaml.safe_load((copy / "config.yaml").read_text())["model"]["weights"]
    assert weights
    assert train.main([f"--resume={copy}", "--trainer.max_epochs=3"]) == 0
    with (copy / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    assert (copy / "test-2" / "metrics.json").exists()
    before = (run / "model" / "model.safetensors").read_bytes()
    assert (copy / "model-old" / "model.safetensors").read_bytes() == before
    assert (copy / "model" / "model.safetensors").exists()


def test_last_is_the_last_epoch_and_resume_begins_there(drawn, tiny_folder, tmp_path, monkeypatch) -> None:
    # nothing ever improves, so best.ckpt stays at the first epoch
    monkeypatch.setattr("nailseg.training.task.mean_defined", lambda values: 0.5)
    args = [*options(drawn, tiny_folder), "--trainer.max_epochs=3", "--name=flat"]
    assert main(["fit", *args]) == 0
    run = tmp_path / "runs" / "flat"
    read = lambda name: model_folder.read_checkpoint(run / "checkpoints" / f"{name}.ckpt")  # noqa: E731
    assert (read("best")["epoch"], read("last")["epoch"]) == (0, 2)
    steps = read("last")["global_step"]
    assert main(["fit", f"--resume={run}", "--trainer.max_epochs=4"]) == 0
    assert read("last")["global_step"] == steps * 4 // 3
    assert read("best")["epoch"] == 0, "the old best score is remembered"


def test_the_last_epoch_is_validated_whatever_the_interval(drawn, tiny_folder, tmp_path) -> None:
    args = [*options(drawn, tiny_folder), "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"]
    assert main(["fit", *args, "--name=odd"]) == 0
    with (tmp_path / "runs" / "odd" / "metrics.csv").open() as file:
        assert [bool(row["val/miou"]) for row in csv.DictReader(file)] == [False, True, True]


def test_a_run_without_validation_keeps_its_last_weights(drawn, tiny_folder, tmp_path) -> None:
    args = [*options(drawn, tiny_folder), "--trainer.limit_val_batches=0", "--trainer.max_epochs=1"]
    assert main(["fit", *args, "--name=blind"]) == 0
    assert (tmp_path / "runs" / "blind" / "model" / "model.safetensors").exists()


def test_a_new_run_from_an_old_checkpoint_has_its_own_best(run, drawn, tiny_folder, tmp_path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    args = [*options(drawn, tiny_folder), "--trainer.max_epochs=3", "--model.lr=0", f"--ckpt_path={last}"]
    assert main(["fit", *args, "--name=new"]) == 0
    assert (tmp_path / "runs" / "new" / "checkpoints" / "best.ckpt").exists()


def test_the_model_keeps_the_size_it_was_evaluated_at(drawn, tiny_folder, tmp_path) -> None:
    args = [*options(drawn, tiny_folder), "--trainer.max_epochs=1", "--data.eval_size=96", "--name=large"]
    assert train.main(args) == 0
    run = tmp_path / "runs" / "large"
    assert model_folder.read_info(run / "model").image_size == 96
    assert main(["test", f"--config={run / 'config.yaml'}"]) == 0
    again = tmp_path / "runs" / "large" / "test-2" / "metrics.json"
    assert_same_metrics(
        json.loads(again.read_text()), json.loads((run / "test" / "metrics.json").read_text())
    )


def test_own_callbacks_and_loggers_are_taken(run, drawn, tiny_folder, tmp_path) -> None:
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=log"]
    callback = "--trainer.callbacks=LearningRateMonitor"
    args = [*options(drawn, tiny_folder), "--trainer.max_epochs=1", *logger, callback]
    assert main(["fit", *args, "--name=own"]) == 0
    assert list((tmp_path / "log").rglob("metrics.csv"))
    config = tmp_path / "runs" / "own" / "config.yaml"
    assert main(["test", f"--config={config}"]) == 0


def test_a_models_own_size_beats_a_training_config(run, drawn, tmp_path, monkeypatch) -> None:
    sizes = []
    monkeypatch.setattr(
        "nailseg.imaging.geometry.network_size", lambda h, w, size, resize: sizes.append(size) or (64, 64)
    )
    data = [f"--data.csv={drawn / 'dataset.csv'}", "--trainer.accelerator=cpu", "--data.workers=0"]
    assert main(["test", "--config", "b0.yaml", f"--model.weights={run / 'model'}", *data]) == 0
    assert set(sizes) == {64}


def test_checkpoints_hold_the_averaged_weights(run) -> None:
    content = model_folder.read_checkpoint(run / "checkpoints" / "last.ckpt")
    name = "network.hf.decode_head.classifier.weight"
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])
    assert torch.equal(
        model_folder.open_network(run / "checkpoints" / "last.ckpt").state_dict()[
            "hf.decode_head.classifier.weight"
        ],
        content["state_dict"][name],
    )


def test_predict_writes_masks_at_the_original_size(run, drawn, tmp_path) -> None:
    out = tmp_path / "masks"
    assert main(["predict", str(drawn / "Images"), "--model", str(run), "--out", str(out), "--overlay"]) == 0
    images = [p for p in (drawn / "Images").rglob("*") if p.is_file()]
    for image in images:
        relative = image.relative_to(drawn / "Images").with_suffix(".png")
        mask = cv2.imread(str(out / relative), cv2.IMREAD_UNCHANGED)
        assert mask.shape == cv2.imread(str(image)).shape[:2]
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
    assert len(list(out.rglob("*.png"))) == len(images) == len(list(out.rglob("*.overlay.jpg")))


def test_log_images_and_patience_are_options(drawn, tiny_folder, tmp_path) -> None:
    args = [
        "fit",
        *options(drawn, tiny_folder),
        "--trainer.max_epochs=5",
        "--patience=1",
        "--model.lr=0",
        "--log_images",
    ]
    assert main(args) == 0
    with (tmp_path / "runs" / "fit" / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) < 5


def masks_of(drawn) -> list[str]:
    with (drawn / "dataset.csv").open(newline="") as file:
        return [row["mask"] for row in csv.DictReader(file)]


def test_wandb_run_is_offline_and_in_the_run_folder(drawn, tiny_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    args = [*options(drawn, tiny_folder), "--trainer.max_epochs=1", "--log_images", "--name=w"]
    assert train.main(args) == 0
    run = tmp_path / "runs" / "w"
    (records,) = (run / "wandb").glob("offline-run-*/*.wandb")
    media = records.parent / "files" / "media"
    assert list(media.rglob("*.mask.png")), "validation images of the epochs"
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    # the records are framed protocol buffers; values in them are JSON text
    content = records.read_bytes()
    assert b"test/boundary_iou_nail" in content
    assert str(metrics["pixel_accuracy"])[:12].encode() in content
    (confusion,) = (media / "table" / "test").glob("confusion_matrix*.json")
    matrix = metrics["confusion_matrix"]
    assert json.loads(confusion.read_text())["data"] == [
        ["background", "background", matrix[0][0]],
        ["background", "nail", matrix[0][1]],
        ["nail", "background", matrix[1][0]],
        ["nail", "nail", matrix[1][1]],
    ]
    (worst,) = (media / "table" / "test").glob("worst*.json")
    table = json.loads(worst.read_text())
    assert table["columns"] == ["image", "dice_nail"]
    with (run / "test" / "per_image.csv").open() as file:
        dices = {row["image"]: row["dice_nail"] for row in csv.DictReader(file)}
    scores = [score for _, score in table["data"]]
    assert scores == sorted(scores)
    assert all(float(dices[path]) == score for path, score in table["data"])
    images = list((media / "images" / "test").glob("worst_images*.png"))
    masks = list((media / "images" / "mask" / "test").glob("worst_images*.mask.png"))
    assert len(images) == len(scores)
    truths = {cv2.imread(str(drawn / mask), cv2.IMREAD_GRAYSCALE).tobytes() for mask in masks_of(drawn)}
    assert {(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) * 255).tobytes() for mask in masks} & truths


def test_no_logger_and_a_frozen_encoder(drawn, tiny_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    args = [
        *options(drawn, tiny_folder),
        "--trainer.logger=false",
        "--model.freeze_encoder_epochs=2",
        "--ema_decay=0",
    ]
    assert main(["fit", *args, "--name=f"]) == 0
    assert not (tmp_path / "runs" / "f" / "wandb").exists()
    assert (tmp_path / "runs" / "f" / "metrics.csv").exists()
    start = model_folder.open_network(tiny_folder, ["background", "nail"]).state_dict()
    end = model_folder.open_network(tmp_path / "runs" / "f" / "model").state_dict()
    encoder = [name for name in start if "segformer." in name]
    assert encoder
    assert all(torch.equal(start[name], end[name]) for name in encoder)
    assert any(not torch.equal(start[name], end[name]) for name in start if "decode_head" in name)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["fit", "--config", "nowhere.yaml"], 1, "no config 'nowhere.yaml'"),
        (["fit", "--data.csv", "nowhere.csv", "--model.weights", "b0-random"], 1, "nowhere.csv"),
        (["test", "--data.csv", "x.csv"], 1, "nothing to evaluate"),
        (["fit", "--data.csv", "x.csv", "--name", "a/b"], 1, "--name: expected a name without folders"),
        (["fit", "--data.csv", "x.csv", "--ema_decay", "2"], 1, "--ema_decay: expected a number from 0"),
        (
            ["fit", "--data.csv", "x.csv", "--model.lr", "-1"],
            1,
            "--model.lr: expected a number from 0 to 1e6",
        ),
        (["fit", "--data.csv", "x.csv", "--model.weight_decay", "-1"], 1, "--model.weight_decay: expected a"),
        (["fit", "--data.csv", "x.csv", "--model.dice_weight", "-1"], 1, "--model.dice_weight: expected a"),
        (["fit", "--data.csv", "x.csv", "--model.drop_path", "1"], 1, "--model.drop_path: expected a rate"),
        (
            ["test", "--data.csv", "x.csv", "--model.weights", "nailseg-b0", "--resume", "x"],
            1,
            "resume: expected as an option of",
        ),
        (["check", "x.csv", "--sheet", "x.bmp"], 1, "--sheet x.bmp: expected a name that ends in .png"),
        (["sample", "x", "--count", "0"], 1, "--count 0, --size 256, --seed 0: expected 1 image or more"),
        (
            ["fit", "--data.csv", "x.csv", "--trainer.enable_checkpointing", "false"],
            1,
            "Leave the option out",
        ),
        (["fit", "--resume", "runs/none", "--name", "x"], 1, "--name has no meaning"),
        (["fit", "--resume", "runs/none"], 1, "expected runs/none/config.yaml, found none"),
        (["predict", "nothing.jpg", "--model", "b0", "--out", "o"], 1, "nothing.jpg: expected an image"),
    ],
)
def test_bad_input_meets_one_message(args, code: int, message: str, capsys) -> None:
    assert main(args) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "option",
    [
        *("trainer.accelerator=foo", "trainer.strategy=foo", "trainer.devices=0", "trainer.max_epochs=0"),
        *("trainer.accumulate_grad_batches=0", "trainer.check_val_every_n_epoch=0", "trainer.max_steps=0"),
        *("trainer.limit_train_batches=0", "trainer.val_check_interval=0", "trainer.gradient_clip_val=-5"),
        *("seed_everything=-1", "seed_everything=4294967296", "patience=-1", "model.lr=1e38"),
        *("model.freeze_encoder_epochs=-1", "data.eval_size=0", "data.size=1e6", "trainer.precision=foo"),
    ],
)
def test_values_that_no_training_can_use(option: str, drawn, tiny_folder, tmp_path, capsys) -> None:
    code = main(["fit", *options(drawn, tiny_folder), f"--{option}"])
    assert code == (2 if option in ("data.size=1e6", "trainer.precision=foo") else 1)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert option.partition("=")[0].rpartition(".")[2] in error or "--trainer" in error
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_batch_larger_than_the_set_is_the_set(drawn, tiny_folder, capsys) -> None:
    args = [*options(drawn, tiny_folder), "--data.batch_size=1000", "--trainer.max_epochs=1"]
    assert main(["fit", *args]) == 0
    assert "batch size: 12, all images of an epoch, not 1000" in capsys.readouterr().err


def test_a_run_of_a_number_of_steps(drawn, tiny_folder, tmp_path) -> None:
    args = [*options(drawn, tiny_folder), "--trainer.max_steps=4", "--trainer.max_epochs=-1", "--name=steps"]
    assert main(["fit", *args]) == 0
    last = model_folder.read_checkpoint(tmp_path / "runs" / "steps" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 4


def test_a_run_says_where_it_comes_from(run, drawn, tmp_path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "runs" / "tiny"))
    assert main(["fit", f"--resume={copy}", "--trainer.max_epochs=3"]) == 0
    first, second = json.loads((copy / "provenance.json").read_text())
    assert first["started"] < second["started"]
    assert first.keys() == {
        *("started", "command", "host", "python", "versions", "data_fingerprint", "git_commit", "device")
    }
    assert (
        first["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in first["versions"]["torch"]
    )
    assert first["device"] == "cpu"


@pytest.mark.parametrize("start", [lambda args: main(["fit", *args]), train.main], ids=["fit", "train"])
def test_refused_data_leaves_no_run_folder(start, drawn, tiny_folder, tmp_path, capsys) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(drawn, broken)
    mask = sorted((broken / "Masks" / "2").glob("*.png"))[0]
    cv2.imwrite(str(mask), np.zeros((7, 9), np.uint8))
    assert start(options(broken, tiny_folder)) == 1
    errors = capsys.readouterr().err
    assert mask.name in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_csv_that_cannot_be_read_leaves_no_run_folder(drawn, tiny_folder, tmp_path, capsys) -> None:
    assert main(["fit", *options(drawn, tiny_folder), f"--data.csv={drawn}"]) == 1
    assert "expected a CSV, found a folder. Give the CSV in it, or make one" in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("precious")
    assert main(["sample", "file", "--count", "1"]) == 1
    assert "file/Images/1: expected a folder or a new name, found that it" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_resume_in_a_config_overwrites_no_run(tmp_path, capsys) -> None:
    run = tmp_path / "runs" / "precious"
    run.mkdir(parents=True)
    (tmp_path / "again.yaml").write_text(f"resume: {run}\n")
    assert main(["fit", "--config", "again.yaml", "--data.csv", "x.csv"]) == 1
    assert "resume: expected as an option of a training" in capsys.readouterr().err
    assert list(run.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        ["fit", "--data.size", "many"],
        ["nonsense"],
        ["fit", "--no.such.option", "1"],
        ["sample", "x", "--seed", "-1"],
        ["compare", "a", "b", "--seed", "one"],
        ["check", "x.csv", "--mask-values", "5"],
        ["check", "x.csv", "--mask-values", "{"],
        ["predict", "x.jpg", "--model", "m", "--out", "o", "--threshold", "high"],
        ["predict", "x.jpg", "--model", "m", "--out", "o", "--tile", "-2"],
    ],
)
def test_what_cannot_be_parsed_exits_with_2_and_one_line(args, capsys) -> None:
    assert main(args) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_untrained_weights_are_not_tested(drawn, tiny_folder, capsys) -> None:
    args = [
        "test",
        f"--data.csv={drawn / 'dataset.csv'}",
        "--model.weights=b0-random",
        "--trainer.accelerator=cpu",
    ]
    assert main(args) == 1
    assert "expected a trained classifier" in capsys.readouterr().err


def test_a_diverging_training_stops_at_once(drawn, tiny_folder, tmp_path, capsys) -> None:
    wild = ["--model.lr=1e6", "--trainer.gradient_clip_val=0", "--name=wild"]
    assert train.main([*options(drawn, tiny_folder), *wild]) == 1
    errors = capsys.readouterr().err
    assert re.search(r"expected a finite (training|validation) loss, found .* lower --model.lr", errors)
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("runs/wild/*/metrics.json"))


def test_diverging_later_leaves_the_checkpoints_before(drawn, tiny_folder, tmp_path, monkeypatch) -> None:
    steps, original = [], task.segmentation_loss

    def poisoned(logits, target, **weights):
        steps.extend([1] * logits.requires_grad)
        losses = original(logits, target, **weights)
        return {name: loss * (torch.nan if len(steps) > 3 else 1) for name, loss in losses.items()}

    monkeypatch.setattr(task, "segmentation_loss", poisoned)
    assert train.main([*options(drawn, tiny_folder), "--trainer.max_epochs=3", "--name=late"]) == 1
    assert len(steps) == 6, "three steps an epoch: the second epoch was the last"
    folder = tmp_path / "runs" / "late"
    assert {model_folder.read_checkpoint(p)["epoch"] for p in folder.glob("checkpoints/*.ckpt")} == {0}
    assert not (folder / "model").exists()


def test_a_network_of_nan_is_not_measured(run, drawn, tmp_path, capsys) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run / "model", broken)
    weights = load_file(broken / "model.safetensors")
    save_file({k: v * torch.nan for k, v in weights.items()}, broken / "model.safetensors", {"format": "pt"})
    data = [f"--data.csv={drawn / 'dataset.csv'}", "--trainer.accelerator=cpu", "--data.workers=0"]
    assert main(["test", f"--model.weights={broken}", *data]) == 1
    assert "expected finite logits, found nan or infinite ones" in capsys.readouterr().err
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_test_says_what_was_tested(run, drawn) -> None:
    text = (run / "test" / "metrics.json").read_text()
    found = json.loads(text)["tested"]
    assert re.fullmatch("[0-9a-f]{16}", found.pop("fingerprint"))
    assert found == {
        "split": "test",
        "csv": "dataset.csv",
        "model": "tiny/checkpoints/best.ckpt",
        "eval_size": 64,
        "resize": "keep",
        "allow": [],
        "skip_bad": False,
        "nailseg": nailseg.__version__,
    }
    assert str(drawn) not in text
    assert str(run.parent) not in text
    page = " ".join((run / "test" / "report.html").read_text(encoding="utf-8").split())
    assert "model tiny/checkpoints/best.ckpt; 64 pixels (keep)" in page
    assert "best threshold on this set" in page
    assert "fewer than 5 images" in page


def test_a_fold_leaves_the_hint_to_the_folds(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    trainer = SimpleNamespace(fit=lambda model: sys.exit(1), is_global_zero=True)
    cli = SimpleNamespace(folder=tmp_path, trainer=trainer, _is_new=lambda: False, test_after_fit=True)
    cli._continue = trainer.fit
    for value, hints in (("", 1), ("1", 0)):
        monkeypatch.setenv("NAILSEG_FOLD", value)
        caplog.clear()
        with caplog.at_level("INFO", "nailseg"), pytest.raises(SystemExit):
            NailsegCLI.fit(cli, None)
        assert caplog.text.count("to continue: nailseg train --resume") == hints


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("logger", ["--trainer.logger=false", "--trainer.logger=true"])
def test_a_trainer_that_cannot_be_built_leaves_no_run_folder(
    logger, drawn, tiny_folder, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wanted = [option for option in options(drawn, tiny_folder) if "accelerator" not in option]
    assert main(["fit", *wanted, "--trainer.accelerator=gpu", logger, "--name=nothing"]) == 1
    assert "nailseg: --trainer: No supported gpu backend found!" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "nothing").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_trainer_that_cannot_be_built_keeps_a_run_that_is_resumed(run, tmp_path, capsys) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    before = sorted(resumed.rglob("*"))
    assert main(["fit", "--resume", str(resumed), "--trainer.accelerator=gpu"]) == 1
    assert "No supported gpu backend found!" in capsys.readouterr().err
    assert sorted(resumed.rglob("*")) == before
