"""Notebooks are stored without outputs and say what their text twins say; `make notebooks` runs them."""

from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
TWINS = sorted(FOLDER.glob("*.py"))


def cells(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_the_promised_notebooks_exist() -> None:
    promised = ["01_data", "02_segformer_from_scratch", "03_finetune", "04_vit_vs_segformer"]
    assert [path.stem for path in TWINS] == [*promised, "05_predict_export_tryon"]
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == [path.stem for path in TWINS]


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_a_notebook_is_its_text_without_outputs(twin: Path) -> None:
    stored = jupytext.read(twin.with_suffix(".ipynb"))
    assert cells(stored) == cells(jupytext.read(twin)), "run: make notebooks"
    for cell in stored.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_a_notebook_has_one_settings_cell_before_all_code(twin: Path) -> None:
    code = [source for kind, source in cells(jupytext.read(twin)) if kind == "code"]
    assert [source.startswith("# Settings") for source in code] == [True] + [False] * (len(code) - 1)
