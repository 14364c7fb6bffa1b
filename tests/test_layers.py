"""Imports go down only (house rule); the layers from the top."""

import ast
from pathlib import Path

import pytest

import nailseg

PACKAGE = Path(nailseg.__file__).parent
LAYERS = [
    {"nailseg.__main__", "nailseg.demo"},
    {"nailseg.cli", "nailseg.train", "nailseg.server"},
    {"nailseg.lightning_cli"},
    {"nailseg.compare", "nailseg.folds", "nailseg.recipe", "nailseg.convert", "nailseg.bench"},
    {"nailseg.check", "nailseg.predict", "nailseg.recolour", "nailseg.runs", "nailseg.callbacks"}
    | {"nailseg.report", "nailseg.report_page", "nailseg.wandb_report", "nailseg.plots"}
    | {"nailseg.image_table", "nailseg.report_tables"},
    {"nailseg.inputs", "nailseg.objects", "nailseg.processes"},
    {"nailseg.export", "nailseg.graphs"},
    {"nailseg.predictor", "nailseg.torch_backend", "nailseg.views"},
    {"nailseg.task"},
    {"nailseg.artifact", "nailseg.model_card", "nailseg.exported_network"},
    {"nailseg.exported"},
    {"nailseg.model_info"},
    {"nailseg.models", "nailseg.data"},
    {
        "nailseg.losses",
        "nailseg.metrics",
        "nailseg.optim",
        "nailseg.overlay",
        "nailseg.geometry",
        "nailseg.resampling",
        "nailseg.tryon",
    }
    | {
        "nailseg.summary",
        "nailseg.contours",
        "nailseg.instances",
        "nailseg.calibration",
        "nailseg.bootstrap",
    },
    {"nailseg.types", "nailseg.errors", "nailseg"},
]
STRANGERS = {"nailseg.models", "nailseg.data"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room(module: str) -> str:
    """nailseg.data.reading -> nailseg.data, because a folder is one room."""
    return ".".join(module.split(".")[:2])


def level(module: str) -> int:
    found = [number for number, layer in enumerate(LAYERS) if room(module) in layer]
    assert found, f"{module} is in no layer: give it one in LAYERS"
    return found[0]


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports anywhere in it, functions and type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {
                c for c in children if (PACKAGE.parent / c.replace(".", "/")).with_suffix(".py").exists()
            }
            found |= submodules or {node.module}
    return {name for name in found if name.split(".")[0] == "nailseg"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for imported in imports(path):
        same_room = room(imported) == room(module)
        assert level(imported) >= level(module), f"{module} imports {imported}, which lies above it"
        assert same_room or not {room(imported), room(module)} <= STRANGERS, (
            f"{module} and {imported} are strangers"
        )


def test_the_check_sees_an_import() -> None:
    assert "nailseg.data.datamodule" in imports(PACKAGE / "lightning_cli.py")
    assert level("nailseg.train") < level("nailseg.data.datamodule")


def test_networks_do_not_know_lightning() -> None:
    for path in (PACKAGE / "models").glob("*.py"):
        assert "lightning" not in path.read_text()


def test_one_door_to_albumentations() -> None:
    users = [path.name for path in PACKAGE.rglob("*.py") if "import albumentations" in path.read_text()]
    assert users == ["transforms.py"]
