"""The layers of pyproject.toml are checked by import-linter, and the check finds what it is there for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    code = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(ROOT / "nailseg", tmp_path / "nailseg", ignore=code)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_are_kept(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("importer", "imported", "message"),
    [
        ("metrics/confusion.py", "nailseg.cli.main", "nailseg.metrics is not allowed to import nailseg.cli"),
        ("models/base.py", "nailseg.data.manifest", "nailseg.models is not allowed to import nailseg.data"),
        ("data/pairing.py", "nailseg.data.datamodule", "No cycles are allowed in nailseg.data"),
    ],
)
def test_a_planted_import_is_found(copy: Path, importer: str, imported: str, message: str) -> None:
    file = copy / "nailseg" / importer
    file.write_text(f"{file.read_text()}\nimport {imported}\n")
    done = lint_imports(copy)
    assert done.returncode == 1
    assert message in done.stdout
