import zipfile
from pathlib import Path

import pytest

from nailseg.errors import WeightsError
from nailseg.model_info import locate, model_name, read_info


@pytest.mark.parametrize(
    ("source", "name"),
    [("runs/a/model", "a"), ("runs/a/checkpoints/best.ckpt", "a"), ("x/mine", "mine"), ("y.ckpt", "y")],
)
def test_model_name(source: str, name: str) -> None:
    assert model_name(source) == name


def test_locate(tmp_path: Path) -> None:
    assert locate("nvidia/mit-b0") == "nvidia/mit-b0"
    (tmp_path / "checkpoints").mkdir()
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    best.write_bytes(b"PK damaged")
    with pytest.raises(WeightsError, match=r"found an interrupted one. Continue .*--resume"):
        locate(tmp_path)
    zipfile.ZipFile(last, "w").close()
    with pytest.raises(WeightsError, match=r"Give .*last.ckpt, or continue .*--resume"):
        locate(tmp_path)
    (tmp_path / "model").mkdir()
    assert locate(tmp_path) == str(tmp_path)
    (tmp_path / "model" / "nailseg.json").write_text("[]")
    assert locate(tmp_path) == str(tmp_path / "model")
    with pytest.raises(WeightsError, match=r"nailseg.json: expected an object"):
        read_info(tmp_path / "model")
    assert read_info(tmp_path) is None
