"""Parts of `nailseg bench`; the whole of it is in test_exporter."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from nailseg.export.benchmark import Row, _probe, format_table, plot_latencies


def test_latencies_show_every_form_and_thread_count() -> None:
    rows = [
        Row(form, threads, 10.0, 12.0, 100.0, None, 1.0, None, None, 1.0)
        for form in ("torch", "onnx")
        for threads in (1, 2)
    ]
    svg = plot_latencies(rows)
    for text in ("torch", "onnx", "1 thread<", "2 threads<"):
        assert text in svg


def test_start_and_memory_are_unknown_when_the_process_fails(tmp_path: Path, monkeypatch, caplog) -> None:
    failed = SimpleNamespace(returncode=1, stderr="no such module", stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    (tmp_path / "model.onnx").write_bytes(bytes(2**20))
    memory, start, file = _probe("onnx", tmp_path / "model.onnx", 64)
    assert (memory, start, file) == (None, None, 1.0)
    assert "could not be measured in a process of its own (no such module)" in caplog.text
    line = format_table([Row("onnx", 1, 10.0, 12.0, 100.0, None, 1.0, memory, start, file)]).splitlines()[1]
    assert line.split()[-6:] == ["-", "100.00%", "-", "-", "1.0", "MiB"]


@pytest.mark.parametrize(("name", "expected"), [("model.onnx", 1.0), ("model.xml", 3.0)])
def test_size_of_an_export(tmp_path: Path, monkeypatch, name: str, expected: float) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stdout="1024"))
    (tmp_path / name).write_bytes(bytes(2**20))
    (tmp_path / "model.bin").write_bytes(bytes(2**21))
    assert _probe("form", tmp_path / name, 64) == (1.0, pytest.approx(0, abs=1), expected)
