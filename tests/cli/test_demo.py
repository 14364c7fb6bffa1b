import cv2
import yaml

from nailseg.cli.demo import demo


def test_the_demo_runs_and_runs_again(tiny_folder, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAILSEG_RUN_FOLDER", raising=False)
    options = [
        f"--model.weights={tiny_folder}",
        "--data.size=64",
        "--data.workers=0",
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    for name in ("demo", "demo-2"):
        run = demo(options, count=24)
        assert run.name == name
        assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 1
        printed = capsys.readouterr().out
        assert "Dice of nail" in printed
        assert f"runs/{name}/demo.png" in printed
        assert cv2.imread(str(run / "demo.png")).shape[1] > 3 * 200, (
            "image, truth and prediction side by side"
        )
        assert len(list((run / "predictions").rglob("*.png"))) == sum(
            line.split(",")[2] == "test"
            for line in (tmp_path / "demo" / "nails.csv").read_text().splitlines()
        )
