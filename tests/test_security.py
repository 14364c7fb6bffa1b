"""No version that is installed or allowed has a known hole that concerns what nailseg does."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FLOORS = {
    "torch": ("2.10", "CVE-2026-24747: torch.load with weights_only could be made to run code"),
    "transformers": ("5.17", "CVE-2026-4372 before 5.3; 5.17 has the SegFormer module layout that is read"),
    "lightning": (
        "2.6.6",
        "code execution through checkpoint hyperparameters; 2.6.2 and 2.6.3 were malicious",
    ),
    "pillow": ("13.0", "heap overflow in the JPEG decoder"),
}
"""Lowest version without the hole, and the hole."""


@pytest.mark.parametrize("name", FLOORS)
def test_versions_are_above_the_security_floors(name: str) -> None:
    floor, reason = FLOORS[name]
    below = Version(f"{floor}.dev0")
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    allowed = {(r := Requirement(text)).name.lower(): r for text in content["project"]["dependencies"]}
    assert not allowed[name].specifier.contains(below, prereleases=True), reason
    pinned = re.search(rf"(?mi)^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert Version(pinned[1]) >= Version(floor), reason
    assert Version(version(name)) >= Version(floor), reason
