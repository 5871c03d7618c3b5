import errno
import os
import time

import pytest

from utils import UserError, atomic_write, in_parallel, run_script


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    for error in (KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        with pytest.raises(type(error)), atomic_write(path) as file:
            file.write(b"two")
            raise error
        assert path.read_bytes() == b"one"
    assert error.filename == str(path)
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(
    "error, status, line",
    [
        (UserError("x: is wrong"), 2, "error: x: is wrong"),
        (OSError(errno.ENOSPC, "No space left", "file"), 2, "error: file: No space left"),
        (
            PermissionError("Caught in worker\nTraceback:\n  at\nOSError: no"),
            2,
            "error: OSError: no",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_users_errors_end_in_one_line(capsys, error, status, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == status
    assert capsys.readouterr().err.strip().endswith(line)


def test_mistakes_of_ours_keep_their_traceback():
    def main():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        run_script(main)


def test_an_error_from_a_worker_is_its_last_line():
    text = (
        "Caught UserError in worker 0.\nOriginal Traceback:\n  File\nutils.UserError: a.png: broken"
    )
    assert str(UserError(text)) == "a.png: broken"


def test_parallel_results_keep_their_order_and_an_error_drops_what_waits():
    def slow_first(i):
        time.sleep(0.05 * (i == 0))
        return 2 * i

    assert in_parallel(slow_first, range(20), 4, "item") == list(range(0, 40, 2))
    assert in_parallel(slow_first, [], 4, "item") == []
    done = []

    def fail_at_three(i):
        if i == 3:
            raise UserError("three")
        time.sleep(0.01)
        done.append(i)

    with pytest.raises(UserError, match="three"):
        in_parallel(fail_at_three, range(1000), 2, "item")
    assert len(done) < 100
