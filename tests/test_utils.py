import errno
import itertools
import os
import time

import pytest

from utils import (
    Stopwatch,
    UserError,
    ahead,
    atomic_write,
    count_workers,
    in_parallel,
    run_script,
)


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
        (
            MemoryError(),
            2,
            "memory ran out: try smaller batches or images, or fewer workers",
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


def test_items_come_in_order_and_some_ahead():
    made = []

    def items():
        for i in range(20):
            made.append(i)
            yield i

    for i, item in enumerate(ahead(items(), 3)):
        assert item == i
        time.sleep(0.002)
        assert len(made) <= i + 5
        if 0 < i < 15:
            assert len(made) > i + 1  # before it was asked for
    assert list(ahead([], 2)) == []


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        raise UserError("bad")

    taken = ahead(items(), 4)
    assert next(taken) == 1
    with pytest.raises(UserError, match="bad"):
        next(taken)


def test_who_stops_early_is_not_waited_for():
    taken = ahead(itertools.count(), 2)
    assert next(taken) == 0
    taken.close()


def test_a_stopwatch_splits_its_time():
    watch = Stopwatch("asleep", "busy")
    time.sleep(0.05)
    watch.ended("asleep")
    watch.ended("busy")
    time.sleep(0.02)
    watch.ended("asleep")
    assert watch.seconds["asleep"] >= 0.07 and watch.seconds["busy"] < 0.01
    assert str(watch).endswith("s asleep, 0.0 s busy")


def test_workers_share_the_cores_and_too_many_get_a_warning(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert [count_workers(-1, n) for n in (1, 2, 4, 32)] == [12, 8, 4, 1]
    assert count_workers(0) == 0 and count_workers(16) == 16 and count_workers(4, 4) == 4
    assert capsys.readouterr().out == ""
    assert count_workers(17) == 17
    assert "WARNING: 17 loader workers for 16 cores" in capsys.readouterr().out
