"""Notebooks are stored without outputs and equal their .py files; `make notebooks` runs them."""

from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_all_notebooks_exist() -> None:
    first = ["01_data", "02_segformer_from_scratch", "03_finetune", "04_vit_vs_segformer"]
    assert [path.stem for path in SCRIPTS] == [*first, "05_predict_export_tryon"]
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == [path.stem for path in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_equals_its_script_and_has_no_outputs(script: Path) -> None:
    stored = jupytext.read(script.with_suffix(".ipynb"))
    assert cells(stored) == cells(jupytext.read(script)), "run: make notebooks"
    for cell in stored.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_starts_with_its_only_settings_cell(script: Path) -> None:
    code = [source for kind, source in cells(jupytext.read(script)) if kind == "code"]
    assert [source.startswith("# Settings") for source in code] == [True] + [False] * (len(code) - 1)
