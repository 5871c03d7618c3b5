"""Precision, accumulation and compilation change speed and nothing else; the benchmarks run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from scripts import TINY, fails, run, write_split

import benchmarks.bench_step
from benchmarks import textbook
from benchmarks.bench_step import losses_alone, make_batch
from losses import SelfSupervisedLoss
from networks import Monodepth
from options import TrainOptions, parse
from speed import Speed
from trainer import Trainer

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
KINDS = [
    {},
    {"pose_model_type": "shared"},
    {"pose_model_type": "posecnn"},
    {"predictive_mask": True},
    {"pose_model_input": "all"},
]


# Precision


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_networks_in_bf16_predict_geometry_in_full_precision(kind):
    model = Monodepth(**kind).eval()
    speed = Speed(CPU, "bf16", False)
    images = torch.rand(1, 3, 3, 64, 96)
    full = model(images)
    with speed.autocast():
        half = model(images)
    for name, exact, rough in zip(full._fields, full, half, strict=True):
        for one, other in zip(exact, rough, strict=True):
            assert other.dtype == torch.float32
            assert not torch.equal(one, other), name  # so autocast was on
            assert (one - other).abs().max() < 0.05
    R = half.T[0, :, :3, :3]
    identity = torch.eye(3).expand_as(R)
    torch.testing.assert_close(R @ R.transpose(1, 2), identity, atol=1e-6, rtol=0)
    for disp in half.disps:
        assert not torch.equal(disp, disp.bfloat16().float())  # finer than bf16's 256 steps


def last_loss(capsys):
    line = [s for s in capsys.readouterr().out.splitlines() if s.startswith("epoch ")][-1]
    return float(line.split("loss ")[1].split(",")[0])


@pytest.fixture(scope="module")
def flags(sample, tmp_path_factory):
    folder = write_split(tmp_path_factory.mktemp("speed"), "1-8", "5-8")
    return [*TINY, "--data_path", sample, "--split", folder, "--num_epochs", 1]


def test_training_in_bf16_goes_as_in_fp32(monkeypatch, capsys, flags, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        run(monkeypatch, "train", *flags, "--log_dir", tmp_path, "--precision", precision)
        losses.append(last_loss(capsys))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize(
    "choice, words",
    [
        (["--precision", "fp16"], "fp16 needs a GPU"),
        (["--sync_batchnorm"], "needs several processes of torchrun, each with a GPU"),
        (["--accumulate_grad", "0"], "--accumulate_grad must be a positive number"),
        (["--accumulate_grad", "5"], "fewer than the 10 of a step"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    monkeypatch, capsys, flags, tmp_path, choice, words
):
    line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", tmp_path / "log", *choice)
    assert words in line and not (tmp_path / "log").exists()


def test_a_missing_compiler_shows_at_the_start(monkeypatch, capsys, flags, tmp_path):
    def broken(function):
        def call(*_):
            raise RuntimeError("no C++ compiler\nsecond line")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", tmp_path / "log", "--compile")
    assert "torch.compile does not work here (no C++ compiler): leave it out" in line
    assert not (tmp_path / "log").exists()


# Accumulation


def test_passes_over_one_batch_have_its_gradient(flags, tmp_path):
    """Three passes make the mean gradient of three batches: for equal ones, that of one."""
    norms = {}
    for passes in (1, 3):
        argv = [*flags, "--log_dir", tmp_path, "--accumulate_grad", passes]
        argv += ["--learning_rate", "1e-30", "--disable_automasking"]
        it = Trainer(parse(TrainOptions, list(map(str, argv))))
        batch = next(iter(it.train_loader))
        it.train_loader = [batch] * (it.sampler.steps * passes)
        weight = it.model.depth.decoder[0].conv.conv.weight
        seen = []
        it.optimizer.register_step_pre_hook(
            lambda *_, w=weight, s=seen: s.append(w.grad.norm().item())
        )
        torch.manual_seed(0)
        it.train()
        assert len(seen) == it.sampler.steps == 4 // passes
        norms[passes] = seen[0]
    assert norms[3] == pytest.approx(norms[1], rel=1e-3)


# The textbook version


@pytest.mark.parametrize("seed", [0, 1])
def test_the_textbooks_loss_is_ours(seed):
    torch.manual_seed(seed)
    batch = make_batch(2, 64, 96, CPU)
    values = {name: run() for name, run in losses_alone(batch, SelfSupervisedLoss()).items()}
    assert values["ours"].item() == pytest.approx(values["textbook"].item(), abs=1e-6)
    assert 0.01 < values["ours"].item() < 1


def test_the_textbooks_samples_have_four_scales_of_jittered_floats(sample):
    place = sample / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    files = [tuple(place / f"{i:010d}.jpg" for i in (3, 2, 4))]
    data = textbook.TextbookDataset(files, torch.eye(3), 64, 96, augment=True)
    changed = 0
    for _ in range(20):
        one = data[0]
        assert len(one) == 2 * 3 * 4 + 4
        for scale in range(4):
            assert one[f"target_{scale}"].shape == (3, 64 >> scale, 96 >> scale)
        changed += not torch.equal(one["target_0"], one["target_aug_0"])
    assert 3 < changed < 17


# The benchmarks


@pytest.fixture(scope="module")
def frames(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    place = sample / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    for path in sorted(place.iterdir())[:4]:
        Image.open(path).save(folder / f"{path.stem}.png")
    return folder


def test_the_loaders_benchmark_runs(monkeypatch, capsys, frames, tmp_path):
    threads = torch.get_num_threads()
    out = tmp_path / "loader.json"
    run(monkeypatch, "benchmarks.bench_loader", "--frames", frames, "--samples", 12,
        "--rounds", 1, "--height", 64, "--width", 96, "--json", out)  # fmt: skip
    torch.set_num_threads(threads)
    result = json.loads(out.read_text())
    assert set(result["loaders"]) == {"jpg", "png", "small"}
    for one in result["loaders"].values():
        ms = one["ms_per_sample"]
        assert one["ratio"] == pytest.approx(ms["textbook"] / ms["ours"]) and ms["ours"] > 0
    assert result["resize_psnr_db"] > 35 and "ratio" in capsys.readouterr().out


@pytest.mark.slow
def test_the_steps_benchmark_runs(monkeypatch, capsys, sample, tmp_path):
    out = tmp_path / "step.json"
    run(monkeypatch, "benchmarks.bench_step", "--batch_size", 1, "--height", 64, "--width", 96,
        "--no_cuda", "--rounds", 1, "--data_path", sample, "--split", "sample", "--steps", 3,
        "--json", out)  # fmt: skip
    result = json.loads(out.read_text())
    assert abs(result["loss"]["ours"] - result["loss"]["textbook"]) < 1e-5
    assert result["with_loader"]["samples_per_second"] > 0
    assert "of one large convolution" in capsys.readouterr().out


@pytest.mark.slow
def test_the_evaluations_benchmark_runs(monkeypatch, capsys, tmp_path):
    out = tmp_path / "eval.json"
    run(monkeypatch, "benchmarks.bench_eval", "--images", 10, "--no_cuda", "--json", out)
    assert json.loads(out.read_text())["largest_difference"] < 1e-4
    assert "waiting for images" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_of_several_processes_runs(monkeypatch, capsys, tmp_path):
    out = tmp_path / "ddp.json"
    run(monkeypatch, "benchmarks.bench_ddp", "--batch_size", 1, "--height", 64, "--width", 96,
        "--no_cuda", "--rounds", 1, "--json", out)  # fmt: skip
    assert set(json.loads(out.read_text())["figures"]) == {"1", "2"}


# Compilation

COMPILED = """
import torch
from benchmarks.bench_step import losses_alone, make_batch
from losses import SelfSupervisedLoss

batch = make_batch(2, 64, 96, torch.device("cpu"))
loss = SelfSupervisedLoss()
eager = losses_alone(batch, loss)["ours"]()
loss.compile()
compiled = losses_alone(batch, loss)["ours"]()
print(abs(eager - compiled).item())
"""


@pytest.mark.slow
def test_the_compiled_loss_is_the_eager_one():
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2e-5  # its random tie-breaks are others


def test_both_steps_of_the_benchmark_begin_alike_and_have_the_same_loss():
    batch = make_batch(2, 64, 96, CPU)
    ours = benchmarks.bench_step.Ours(batch, Speed(CPU, "fp32", False))
    plain = benchmarks.bench_step.Textbook(batch, CPU)
    theirs = plain.model.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.model.state_dict().items())
    assert ours.step().item() == pytest.approx(plain.step().item(), abs=1e-5)


@pytest.mark.slow
def test_the_benchmark_of_precisions_runs(monkeypatch, capsys, sample, tmp_path):
    out = tmp_path / "precision.json"
    run(monkeypatch, "benchmarks.bench_precision", "--data_path", sample, "--work", tmp_path,
        "--epochs", 1, "--seeds", 0, "--json", out)  # fmt: skip
    result = json.loads(out.read_text())
    assert set(result["curves"]) == {"fp32-0", "bf16-0"}
    assert result["curves"]["fp32-0"] != result["curves"]["bf16-0"]
    assert "apart" in capsys.readouterr().out
