import signal

import pytest

from nailseg.cli.runner import UsageError, run_guarded, signals_exit
from nailseg.errors import DataError


class OutOfMemoryError(RuntimeError):
    """Stands for torch's."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("two\n  lines"), 2, "nailseg: two lines\n"),
        (DataError("expected a, found b"), 1, "nailseg: expected a, found b\n"),
        (OSError("disk full"), 1, "nailseg: disk full\n"),
        (FileExistsError(17, "File exists", "x/y"), 1, "nailseg: x/y: expected a folder or a new name"),
        (KeyboardInterrupt(), 130, "nailseg: interrupted\n"),
        (OutOfMemoryError("CUDA\nmore"), 1, "nailseg: the GPU's memory is full. CUDA Use a smaller"),
    ],
)
def test_errors_become_one_message_and_a_code(error: BaseException, code: int, message: str, capsys) -> None:
    def action() -> None:
        raise error

    assert run_guarded(action) == code
    assert capsys.readouterr().err.startswith(message)


def test_an_integer_is_the_exit_code_and_other_errors_pass() -> None:
    assert (run_guarded(lambda: 3), run_guarded(lambda: "text"), run_guarded(lambda: None)) == (3, 0, 0)
    with pytest.raises(ZeroDivisionError):
        run_guarded(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="other"):
        run_guarded(lambda: (_ for _ in ()).throw(RuntimeError("other")))


def test_stop_signals_exit_inside_and_the_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), signals_exit():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
