"""A run that is stopped, killed or met by bad files goes on as if nothing had been."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from scripts import TINY, fails, run

from datasets import Frame, KITTIRaw
from options import TrainOptions, parse
from sampling import Draw, DrawnSamples
from states import States, read_state
from trainer import Trainer
from utils import UserError, atomic_folder, noted_signals, remove_unfinished

ROOT = Path(__file__).parent.parent
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture(scope="module")
def flags(sample, short_split):
    return [
        *TINY,
        "--data_path",
        sample,
        "--split",
        short_split,
        "--num_epochs",
        3,
        "--save_steps",
        2,
    ]


@pytest.fixture(scope="module")
def uninterrupted(flags, tmp_path_factory):
    """Weights of a run that nothing happened to (one thread, as where it is killed)."""
    folder = tmp_path_factory.mktemp("whole")
    finished(start(flags, folder))
    kept = weights(folder)
    shutil.rmtree(folder)  # all its states are 2 GB
    return kept


def start(flags, folder, *more):
    """A training in a process (and group) of its own, with one thread."""
    command = [sys.executable, ROOT / "train.py", *flags, "--log_dir", folder, *more]
    return subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process, status=0):
    """What a process prints until it ends, with that status and no traceback."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == status and "Traceback" not in err, err
    return out, err


def wait_for_state(folder):
    end = time.monotonic() + 60
    while not any_state(folder / "mdp/states") and time.monotonic() < end:
        time.sleep(0.02)


def weights(folder, epoch=2):
    models = folder / f"mdp/models/weights_{epoch}"
    return {
        f"{path.stem}.{name}": value
        for path in sorted(models.glob("*.pth"))
        for name, value in torch.load(path).items()
        if isinstance(value, torch.Tensor)
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# Exact resume


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again_it_ends_with_the_same_weights(flags, tmp_path, uninterrupted, seed):
    kill_and_resume(flags, tmp_path, uninterrupted, random.Random(seed), kills=3)


@pytest.mark.slow
def test_soak(flags, tmp_path):
    """Twenty kills, also while a state is being written (make soak)."""
    long = [*flags, "--num_epochs", 16, "--save_frequency", 16]
    finished(start(long, tmp_path / "whole"))
    expected = weights(tmp_path / "whole", 15)
    inside = kill_and_resume(long, tmp_path / "killed", expected, random.Random(0), kills=20)
    print(f"{inside} of 20 kills met a state that was being written")
    assert inside > 0


def kill_and_resume(flags, folder, expected, rng, kills):
    """SIGKILL at random instants, loadable states all along, and equal weights at the end.

    Returns how many kills left a half-written state, which the next start clears away.
    """
    states = folder / "mdp/states"
    killed = inside = 0
    while True:
        process = start(flags, folder, *(["--resume"] if any_state(states) else []))
        if killed < kills:
            before = sorted(states.glob("state_*")) if states.exists() else []
            end = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < end:
                if states.exists() and sorted(states.glob("state_*")) != before:
                    break  # it has begun: any moment from here
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1.5))  # until after the next state
            process.send_signal(signal.SIGKILL)
            killed += 1
        out, err = process.communicate(timeout=120)
        inside += process.returncode != 0 and any(states.glob(".state_*"))
        if any_state(states):
            newest = max(states.glob("state_*.pth"), key=lambda p: p.stat().st_mtime_ns)
            assert read_state(newest)["counts"]["step"] > 0
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
    epoch = max(int(p.name[8:]) for p in (folder / "mdp/models").glob("weights_[0-9]*"))
    assert same(weights(folder, epoch), expected) and killed == kills
    assert not [path for path in (folder / "mdp").rglob(".*")]
    return inside


def any_state(states):
    return states.exists() and any(states.glob("state_*.pth"))


def test_sigterm_saves_and_says_how_to_go_on(flags, tmp_path, uninterrupted):
    process = start(flags, tmp_path)
    wait_for_state(tmp_path)
    process.terminate()
    out, _ = finished(process, 143)
    assert "stopped by SIGTERM after step" in out and "--resume goes on" in out
    assert "state saved in" in out
    out, _ = finished(start(flags, tmp_path, "--resume", "--num_workers", 2))
    assert "going on from" in out
    assert same(weights(tmp_path), uninterrupted)  # whatever loads the samples


@pytest.mark.slow
def test_a_signal_to_loaders_too_leaves_the_last_state(flags, tmp_path, uninterrupted):
    """As from a scheduler that ends a job: the whole group gets it."""
    process = start(flags, tmp_path, "--num_workers", 1)
    wait_for_state(tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = finished(process, 143)
    assert "stopped by SIGTERM" in out
    finished(start(flags, tmp_path, "--resume"))
    assert same(weights(tmp_path), uninterrupted)


def test_a_signal_while_it_validates_is_not_left_waiting(flags, tmp_path, monkeypatch, capsys):
    argv = [*flags, "--log_dir", tmp_path]
    it = Trainer(parse(TrainOptions, list(map(str, argv))))
    loader, asked = it.val_loader, []

    def interrupted():
        for batch in loader:
            asked.append(batch)
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    it.val_loader = interrupted()
    with pytest.raises(SystemExit) as caught:
        it.train()
    assert caught.value.code == 143 and len(asked) == 1
    out = capsys.readouterr().out
    assert "stopped by SIGTERM after step 5, state saved in" in out and "epoch 1/3" not in out
    run(monkeypatch, "train", *argv, "--resume", "--num_epochs", 1)
    assert "epoch 1/1: loss" in capsys.readouterr().out  # validated now


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the children")
def test_a_killed_loader_ends_the_run_in_one_line(flags, tmp_path):
    process = start(flags, tmp_path, "--num_workers", 1, "--num_epochs", 1000)
    wait_for_state(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    _, err = finished(process, 2)
    assert "a process that loads data was killed" in err and "last state: " in err


@contextlib.contextmanager
def interrupts_by(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_signal_is_obeyed():
    with interrupts_by(signal.default_int_handler), noted_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_a_signal_ignored_before_stays_ignored():
    with interrupts_by(signal.SIG_IGN), noted_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted.received is None


@pytest.fixture(scope="module")
def one_epoch(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_epoch")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "train", *flags, "--log_dir", folder, "--num_epochs", 1)
    return folder


@pytest.fixture
def stopped(one_epoch, tmp_path):
    """The folder of a run of three epochs of which one is done."""
    shutil.copytree(
        one_epoch / "mdp", tmp_path / "mdp", ignore=shutil.ignore_patterns("weights_best")
    )
    return tmp_path


def test_more_epochs_may_be_asked_for_and_then_none_is_left(monkeypatch, capsys, flags, stopped):
    go_on = [*flags, "--log_dir", stopped, "--resume"]
    run(monkeypatch, "train", *go_on, "--num_epochs", 2)
    out = capsys.readouterr().out
    assert (
        "going on from" in out and "epoch 2, 0 of 5 steps done" in out and "epoch 2/2: loss" in out
    )
    run(monkeypatch, "train", *go_on, "--num_epochs", 2)
    assert "nothing left to do: all 2 epochs are done" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, words",
    [
        (["--seed", "1"], "--seed 0, not 1"),
        (["--use_stereo", "--learning_rate", "3e-4"], "--use_stereo False, not True"),
        (["--batch_size", "3"], "--batch_size 2, not 3"),
        (["--resume", "nowhere.pth"], "nowhere.pth: no such state"),
    ],
)
def test_what_would_change_the_run_is_refused_with_the_difference(
    monkeypatch, capsys, flags, stopped, change, words
):
    before = sorted(p.name for p in (stopped / "mdp/states").iterdir())
    line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", stopped, "--resume", *change)
    assert words in line
    assert before == sorted(p.name for p in (stopped / "mdp/states").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped", "swapped", "empty"])
def test_a_damaged_state_is_named_and_the_one_before_taken(
    monkeypatch, capsys, flags, stopped, damage
):
    older, newest = sorted((stopped / "mdp/states").iterdir())
    content = newest.read_bytes()
    middle = len(content) // 2
    other = {
        "truncated": content[:middle],
        "garbage": b"garbage" * 100,
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "swapped": (stopped / "mdp/models/weights_0/depth.pth").read_bytes(),
        "empty": b"",
    }[damage]
    newest.write_bytes(other)
    run(monkeypatch, "train", *flags, "--log_dir", stopped, "--resume", "--num_epochs", 1)
    out = capsys.readouterr().out
    assert f"WARNING: {newest}: " in out and f"going on from {older}" in out
    assert len(list((stopped / "mdp/states").iterdir())) == 2


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_state_that_would_run_code_is_refused(monkeypatch, capsys, flags, stopped, tmp_path):
    mark, path = tmp_path / "it ran", tmp_path / "state_99.pth"
    torch.save({"identity": {}, "parts": {}, "counts": {}, "bomb": Bomb(mark)}, path)
    line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", stopped, "--resume", path)
    assert "cannot be read as weights" in line and not mark.exists()


def test_without_any_whole_state_it_says_so(monkeypatch, capsys, flags, stopped):
    for path in (stopped / "mdp/states").iterdir():
        path.write_bytes(b"")
    line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", stopped, "--resume")
    assert "holds no state to go on from" in line


def test_the_newest_weights_and_the_best_stay(monkeypatch, capsys, flags, tmp_path):
    run(monkeypatch, "train", *flags, "--log_dir", tmp_path, "--keep", 2)
    assert {p.name for p in (tmp_path / "mdp/models").iterdir()} == {
        "weights_1", "weights_2", "weights_best", "opt.json",
    }  # fmt: skip
    scores = [
        float(line.split("val abs_rel ")[1].split(",")[0])
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("epoch ")
    ]
    states = States(tmp_path / "mdp/states", 2, {})
    assert states.find(None)["counts"]["best"] == pytest.approx(min(scores), abs=1e-4)


# Samples


def drawn(sample, **more):
    frames = [Frame(DRIVE, i, "l") for i in range(1, 11)]
    return DrawnSamples(KITTIRaw(sample, frames, 64, 96, (0, 1), augment=True), **more)


def test_a_sample_depends_on_its_draw_alone(sample):
    data = drawn(sample)
    torch.manual_seed(3)
    ahead = torch.rand(4)
    torch.manual_seed(3)
    first = data[Draw(2, 77)]
    assert torch.equal(torch.rand(4), ahead)  # other random numbers go on as if nothing had been
    torch.rand(10)
    again, other = data[Draw(2, 77)], data[Draw(2, 78)]
    assert torch.equal(first["color_aug"], again["color_aug"]) and first["index"] == 2
    assert not torch.equal(first["color_aug"], other["color_aug"])


@pytest.fixture
def broken(sample, tmp_path):
    """The sample data with one frame that cannot be read, of ten."""
    data = tmp_path / "data"
    shutil.copytree(sample, data)
    frame = data / DRIVE / "image_02/data/0000000005.jpg"
    frame.write_bytes(frame.read_bytes()[:500])
    return data


def test_a_bad_sample_is_replaced_by_the_next(broken):
    with pytest.raises(UserError, match="0000000005"):
        drawn(broken)[Draw(4, 0)]
    data = drawn(broken, skip_bad=True)
    sample = data[Draw(4, 0)]  # of frames 5 and 6
    assert (sample["index"], sample["bad"]) == (5, 4)
    assert torch.equal(sample["color"], data[Draw(5, 0)]["color"])
    assert data[Draw(3, 0)]["bad"] == 3  # its neighbour is frame 5


def test_a_bad_sample_stops_with_the_state_saved(monkeypatch, capsys, flags, broken, tmp_path):
    line = fails(monkeypatch, capsys, "train", *flags, "--data_path", broken, "--log_dir", tmp_path)
    assert "0000000005.jpg: cannot be read as an image" in line


def test_skipped_samples_are_listed_until_they_are_too_many(
    monkeypatch, capsys, flags, broken, tmp_path
):
    line = fails(
        monkeypatch, capsys, "train", *flags, "--data_path", broken, "--log_dir", tmp_path,
        "--on_bad_sample", "skip",
    )  # fmt: skip
    assert "of 10 samples cannot be read" in line and "more than 5%: repair the data" in line


# Steps that are not finite


def test_a_step_that_is_not_finite_changes_nothing(flags, tmp_path, capsys):
    argv = [*flags, "--log_dir", tmp_path, "--num_epochs", "1", "--disable_automasking"]
    it = Trainer(parse(TrainOptions, list(map(str, argv))))
    forward = it._forward
    seen = []

    def poisoned(batch, network, loss):
        color, prediction, terms = forward(batch, network, loss)
        step = it.step
        if network is it.network:
            seen.append({k: v.clone() for k, v in it.model.named_parameters()})
            if step == 1:  # a loss that is finite, and gradients that are not
                bad = prediction.disps[0].mean()
                terms = terms._replace(total=terms.total + (bad - bad.detach()).abs().sqrt())
            if step == 2:
                terms = terms._replace(total=terms.total * float("nan"))
        return color, prediction, terms

    it._forward = poisoned
    it.train()
    out = capsys.readouterr().out
    assert out.count("not finite, skipped") == 2
    after = [*seen[1:], dict(it.model.named_parameters())]
    changed = [
        any(not torch.equal(a[k], b[k]) for k in a) for a, b in zip(seen, after, strict=True)
    ]
    assert changed == [True, False, False, True, True]
    assert all(value.isfinite().all() for value in it.model.state_dict().values())


# Folders


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "weights"
    for content in ("one", "two"):
        with atomic_folder(path) as folder:
            (folder / "file").write_text(content)
        assert (path / "file").read_text() == content
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "file").write_text("three")
        raise KeyboardInterrupt
    assert (path / "file").read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["weights"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    for name in (".state_1.pth.abcd1234", "state_1.pth", ".hidden"):
        (tmp_path / name).write_text(name)
    for name in (".weights_1.aaaa1111", ".weights_1.bbbb2222.old", ".weights_2.cccc3333.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "weights_2").mkdir()
    remove_unfinished(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "state_1.pth", ".hidden", "weights_1", "weights_2",
    }  # fmt: skip
    assert (tmp_path / "weights_1/file").read_text() == ".weights_1.bbbb2222.old"  # the last whole
    remove_unfinished(tmp_path / "nowhere")
