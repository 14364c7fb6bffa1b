"""Messages about a command line that cannot be parsed."""

import subprocess
import sys
from typing import Literal

import pytest

from nailseg.cli.messages import describe_type


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "a whole number"),
        (float | Literal["model"] | None, "a number or model"),
        (Literal["fit", "test"], "one of fit, test"),
        (tuple[str, ...], "a list such as '[A,B]'"),
    ],
)
def test_types_in_words(kind: object, words: str) -> None:
    assert describe_type(kind) == words


@pytest.mark.parametrize(
    "args",
    [
        ["predict", "--modle", "x"],
        ["predict"],
        ["predict", "a.jpg", "--out", "o", "--tile", "abc"],
        ["check", "a.csv", "--max-pixels", "x"],
    ],
    ids=" ".join,
)
def test_a_mistyped_option_does_not_wait_for_torch(args) -> None:
    code = f"import sys; from nailseg.cli.main import main; assert main({args}) == 2"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
