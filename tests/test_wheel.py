"""The package as people install it: built, put into an empty place, asked for its configs and its model."""

import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from nailseg.data.synthetic.sample import draw_hand

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves folders behind
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "nailseg", "configs"):
        (source / name).symlink_to(ROOT / name)
    build = [
        sys.executable,
        *["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w"],
        str(folder),
        str(source),
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("nailseg-*.whl")
    return built


@pytest.fixture
def hand(tmp_path) -> Path:
    path = tmp_path / "hand.png"
    cv2.imwrite(str(path), draw_hand(np.random.default_rng(0), 128, 4)[0][..., ::-1])
    return path


def test_the_wheel_finds_its_configs_and_its_model(wheel, hand, tmp_path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        missing = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "nailseg").rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        } - set(archive.namelist())
        assert not missing, "templates, the page and the weights belong to the package"
    # -I: neither this checkout nor the current folder is on the path; dependencies are this environment's
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import nailseg.cli.arguments as r; "
        "print(r.__file__); print(r.find_config('b4.yaml')); print(r.find_config('demo.yaml')); "
        f"import nailseg, nailseg.model_info as m; assert nailseg.load()({str(hand)!r}).mask.shape; "
        "print(m.locate('nailseg-b0'))"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=empty, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(site)) for line in done.stdout.splitlines())


@pytest.mark.slow
def test_the_wheel_predicts_in_an_environment_of_its_own(wheel, hand, tmp_path) -> None:
    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", tmp_path / "env")
    programs = tmp_path / "env" / "bin"
    run(programs / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    where = run(programs / "python", "-c", "import nailseg; print(nailseg.__file__)")
    assert where.startswith(str(tmp_path))
    run(programs / "nailseg", "predict", hand, "--model", "nailseg-b0", "--out", tmp_path / "masks")
    assert cv2.imread(str(tmp_path / "masks" / "hand.png"), cv2.IMREAD_UNCHANGED).shape[0] > 0
