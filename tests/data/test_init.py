"""The public names of `nailseg.data`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nailseg.data


def test_all_public_names_exist() -> None:
    for name in nailseg.data.__all__:
        assert getattr(nailseg.data, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'SegmentationDataModul'"):
        _ = nailseg.data.SegmentationDataModul


def test_importing_the_package_loads_no_torch() -> None:
    check = "import sys, nailseg.data; print(sorted({'torch', 'lightning', 'pandas'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
