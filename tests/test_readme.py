"""The commands, names and links of README and docs exist; docs/architecture.md lists every package."""

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from nailseg.cli import arguments
from nailseg.cli.main import VERBS, command_line, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md"))
TEXT = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
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
        re.findall(r"`make ([\w-]+)", TEXT)
    )
    assert {"demo", "test", "bench"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*##", makefile, re.M), target


LIGHTNING = ("train", "fit", "validate", "test")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "nailseg"], ids=" ".join)
def test_commands_parse(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command[1] in LIGHTNING:
        monkeypatch.chdir(tmp_path)  # configs are found from any folder
        with pytest.raises(SystemExit, match="0"):
            main([*command[1:], "--auto_config=false", "--print_config"])
    else:
        assert command_line().parse_args(command[1:], exit_on_error=False)


def test_named_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with contextlib.suppress(SystemExit):  # argparse's way to end
            main([verb, "--help"])
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    # Lightning reads the trainer's options at the verb only; pip and git have their own
    named = set(re.findall(r"`(?:nailseg [^`]*)?(--[\w.*-]+)", TEXT))
    others = ("--no-", "--index-url", "--trainer.", "--data.*", "--model.*")
    assert {option for option in named - known if not option.startswith(others)} == set()


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"\b(\w+\.yaml)\b", TEXT)) - {"config.yaml", "data.yaml"})
)
def test_named_configs_exist(name: str) -> None:
    assert arguments.find_config(name).is_file()


@pytest.mark.parametrize("block", [b for language, b in BLOCKS if language == "python"])
def test_python_names_exist(block: str) -> None:
    for module, name in re.findall(r"from (nailseg[\w.]*) import (\w+)", block):
        assert hasattr(__import__(module, fromlist=[name]), name)
    compile(block, "docs", "exec")


def test_ci_runs_the_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if name.startswith("notebooks/") and page.parent.name == "docs":  # which `make docs` copies there
            file = ROOT / name
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)", file.read_text(), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_architecture_page_lists_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `([\w.]+)` \|", text, re.M)
    folders = {path.parent.relative_to(ROOT / "nailseg") for path in ROOT.glob("nailseg/*/**/__init__.py")}
    assert sorted(listed) == sorted([".".join(folder.parts) for folder in folders] + ["nailseg", "weights"])
