"""The commands, names and links of the README exist; docs/architecture.md lists every package."""

import re
import shlex
from pathlib import Path

import pytest

from nailseg.cli import arguments
from nailseg.cli.main import command_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [
    shlex.split(line, comments=True)
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def test_the_first_screen_has_both_commands() -> None:
    first_screen = README.split("\n## ")[0]
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_make_targets_exist_and_help_lists_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {command[1] for command in COMMANDS if command[0] == "make"} | set(
        re.findall(r"`make ([\w-]+)`", README)
    )
    assert {"demo", "test", "bench"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*##", makefile, re.M), target


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "nailseg"], ids=" ".join)
def test_verbs_parse(command: list[str]) -> None:
    assert command_line().parse_args(command[1:], exit_on_error=False)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(\w+\.yaml)\b", README)) - {"config.yaml"}))
def test_named_configs_exist(name: str) -> None:
    assert arguments.find_config(name).is_file()


@pytest.mark.parametrize("block", [b for language, b in BLOCKS if language == "python"])
def test_python_names_exist(block: str) -> None:
    for module, name in re.findall(r"from (nailseg[\w.]*) import (\w+)", block):
        assert hasattr(__import__(module, fromlist=[name]), name)
    compile(block, "README", "exec")


def test_ci_runs_the_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "configs/README.md", "docs/architecture.md"])
def test_links_to_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_architecture_page_lists_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `([\w.]+)` \|", text, re.M)
    folders = {path.parent.relative_to(ROOT / "nailseg") for path in ROOT.glob("nailseg/*/**/__init__.py")}
    assert sorted(listed) == sorted([".".join(folder.parts) for folder in folders] + ["nailseg", "weights"])
