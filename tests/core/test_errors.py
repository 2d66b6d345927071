"""A foreseen failure is one line and its documented exit code; a bug keeps its traceback."""

import errno

import pytest

from core.errors import AccessError, CheckFailed, InputError, MachineError, Stopped, TabsmithError, errors_in_one_line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TabsmithError("a\nb"), 1),
        (InputError("a\nb"), 2),
        (AccessError("a\nb"), 3),
        (CheckFailed("a\nb"), 4),
        (MachineError("a\nb"), 5),
        (Stopped("a\nb"), 75),
        (OSError(errno.ENOSPC, "full", "x"), 5),
        (KeyboardInterrupt(), 75),
    ],
)
def test_exit_codes(error, code, capsys):
    with pytest.raises(SystemExit) as left, errors_in_one_line():
        raise error
    assert left.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError), errors_in_one_line():
        1 / 0  # noqa: B018
