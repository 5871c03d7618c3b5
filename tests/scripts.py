"""Run the command-line scripts inside the test's process."""

import importlib
import sys

import pytest

from utils import run_script

TINY = (
    "--height 64 --width 64 --batch_size 2 --weights_init scratch --num_workers 0 --no_cuda "
    "--no_data_check".split()
)


def run(monkeypatch, name, *argv):
    """A script's `main` with a command line."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, argv)])
    run_script(importlib.import_module(name).main)


def fails(monkeypatch, capsys, name, *argv):
    """The one line in which a failing script ends; its status must be 2."""
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, name, *argv)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    line = err.rstrip("\n").splitlines()[-1]
    assert line.split("\r")[-1].startswith(f"{name}.py: error: "), err
    return line


def write_split(folder, train, val):
    """A split of runs of frames, as 1-10, of the first drive of the made-up street."""
    folder.mkdir(exist_ok=True)
    for part, span in (("train", train), ("val", val)):
        line = f"2011_09_26/2011_09_26_drive_0001_sync {span} l\n"
        (folder / f"{part}_files.txt").write_text(line)
    return folder
