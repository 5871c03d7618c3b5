"""What the loop does over steps and epochs."""

import shutil

import numpy as np
import pytest
import torch
from scripts import TINY, fails, write_split

import checkpoint
from building import build_scheduler
from options import TrainOptions, parse
from trainer import Trainer


def trainer(sample, folder, *flags):
    write_split(folder / "split", "1-10", "5-8")
    places = {"--data_path": sample, "--split": folder / "split", "--log_dir": folder}
    argv = [*TINY, *map(str, sum(places.items(), ())), "--model_name", "run", *flags]
    return Trainer(parse(TrainOptions, argv))


def test_loss_falls_rates_drop_and_weights_are_saved_as_asked(sample, tmp_path, capsys):
    flags = "--num_epochs 8 --scheduler_step_size 6 --save_frequency 3 --use_stereo --frame_ids 0"
    it = trainer(sample, tmp_path, *flags.split(), "--learning_rate", "3e-4")
    rates, unchanged = [], []
    train_epoch, validate = it._train_epoch, it._validate

    def watched_epoch():
        rates.append(it.optimizer.param_groups[0]["lr"])
        return train_epoch()

    def watched_validation():
        before = {k: v.clone() for k, v in it.model.state_dict().items()}
        values = validate()
        unchanged.append(all(torch.equal(v, before[k]) for k, v in it.model.state_dict().items()))
        return values

    it._train_epoch, it._validate = watched_epoch, watched_validation
    it.train()
    lines = [s for s in capsys.readouterr().out.splitlines() if s.startswith("epoch ")]
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert np.mean(losses[-2:]) < 0.9 * losses[0], losses
    assert rates == pytest.approx([3e-4] * 6 + [3e-5] * 2)
    saved = sorted(path.name for path in (tmp_path / "run" / "models").glob("weights_*"))
    assert saved == ["weights_2", "weights_5", "weights_7", "weights_best"]
    assert unchanged == [True] * 8
    assert it.step == 8 * 5
    last = checkpoint.load_depth_model(tmp_path / "run/models/weights_7").model
    assert torch.equal(last.depth.decoder[10].conv.weight, it.model.depth.decoder[10].conv.weight)


@pytest.mark.parametrize(
    "epochs, expected",
    [
        ((2,), [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]),
        ((2, 5), [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_one_number_drops_the_rate_again_and_again_several_once_each(epochs, expected):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(optimizer, epochs)
    rates = []
    for _ in expected:
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(expected)


def test_the_gradient_of_each_step_stands_alone(sample, tmp_path):
    """Two steps on one batch without learning give the same gradient, not its double."""
    flags = "--num_epochs 1 --learning_rate 1e-30 --disable_automasking"
    it = trainer(sample, tmp_path, *flags.split())
    it.train_loader = [next(iter(it.train_loader))] * it.sampler.steps
    norms = []
    weight = it.model.depth.decoder[0].conv.conv.weight
    it.optimizer.register_step_pre_hook(lambda *_: norms.append(weight.grad.norm().item()))
    it.train()
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_divergence_ends_in_one_line(monkeypatch, capsys, sample, tmp_path):
    line = fails(monkeypatch, capsys, "train", *TINY, "--data_path", sample, "--split",
        sample / "splits/sample", "--log_dir", tmp_path, "--learning_rate", "1e30")  # fmt: skip
    assert "diverged at step" in line and "--learning_rate" in line
    assert "10 times in a row" in line and "drive_0001_sync" in line


def test_bad_ground_truth_shows_before_the_first_step(monkeypatch, capsys, sample, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(sample, data)
    scans = data / "2011_09_26/2011_09_26_drive_0001_sync/velodyne_points/data"
    for scan in scans.iterdir():
        scan.write_bytes(b"broken")
    line = fails(monkeypatch, capsys, "train", *TINY, "--data_path", data, "--split",
        data / "splits/sample", "--log_dir", tmp_path / "log")  # fmt: skip
    assert "is no velodyne scan" in line and not (tmp_path / "log").exists()


def test_networks_see_jittered_images_and_the_loss_does_not(sample, tmp_path):
    it = trainer(sample, tmp_path)
    batch = next(iter(it.train_loader))
    batch["jittered"], batch["color_aug"] = torch.tensor([1]), 255 - batch["color"][1:]
    seen = {}

    def network(images, stereo_T):
        seen["networks"] = images
        return it.model(images, stereo_T)

    def loss(*prediction, color, K, valid=None):
        seen["loss"] = color
        return it.loss(*prediction, color=color, K=K)

    color, _, _ = it._forward(batch, network, loss)
    assert color is seen["loss"]
    torch.testing.assert_close(color, batch["color"].float() / 255)
    torch.testing.assert_close(seen["networks"][0], color[0])
    torch.testing.assert_close(seen["networks"][1], 1 - color[1])
    assert color.is_contiguous() and seen["networks"].is_contiguous()
