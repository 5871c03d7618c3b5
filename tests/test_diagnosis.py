"""Known failures of training are seen in what validation predicts, and good predictions are not."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts import TINY, run

from diagnosis import PAGE, rotation_angle, signs_of, warnings_of
from layers import pose_matrix
from losses import LossTerms
from networks import Prediction
from options import ROOT
from trainer import reconstruction_psnr

H, W = 48, 64


def ground(near=2.0, far=50.0):
    """Depth [H W] of a road below a horizon."""
    rows = torch.linspace(1 / far, 1 / near, H)
    return (1 / rows)[:, None].expand(H, W)


def symptoms(depth=None, shift=0.3, turn=0.02, moved=0.7, samples=3, valid=None, **how):
    """Warnings for samples of that depth [H W], motion, and share of pixels that moved."""
    depth = (ground() if depth is None else depth).expand(samples, 1, H, W)
    disp = (1 / depth - 1 / 100) / (1 / 0.1 - 1 / 100)
    pose = pose_matrix(torch.tensor([[0.0, turn, 0.0]]), torch.tensor([[0.0, 0.0, shift]]))
    T = pose.expand(samples, 2, 4, 4)
    mask = (torch.rand(samples, H, W) < moved,) if moved is not None else ()
    terms = LossTerms(torch.tensor(0.1), torch.tensor([0.1]), (), mask)
    valid = None if valid is None else valid.expand(samples, H, W)
    prediction = Prediction((disp,), T)
    return warnings_of(signs_of(prediction, terms, 0.1, 100.0, stereo=False, valid=valid, **how))


def test_a_healthy_training_has_no_symptoms():
    assert symptoms() == [] and symptoms(moved=None) == [] and warnings_of([]) == []


@pytest.mark.parametrize(
    "state, words",
    [
        ({"depth": torch.full((H, W), 7.0)}, "the same everywhere"),
        ({"moved": 0.001}, "auto-masking leaves"),
        ({"shift": 1e-5}, "motion is next to nothing"),
        ({"shift": 40.0}, "motion explodes (.* of the median depth"),
        ({"turn": 1.0}, "motion explodes .* 57 degrees"),
    ],
)
def test_each_failure_has_its_own_line(state, words):
    (line,) = symptoms(**state)
    assert re.search(words.replace("(.*", r"\(.*"), line)
    anchor = line.rpartition(f"{PAGE}#")[2]
    headings = re.findall(r"^#+ (.+)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_a_car_that_keeps_its_distance_is_a_hole():
    depth = ground().clone()
    depth[-14:-4, 20:44] = 95.0
    (line,) = symptoms(depth)
    assert "are holes, 10 times as far" in line
    sky = ground().clone()
    sky[: H // 2] = 99.0
    assert symptoms(sky) == []


@given(st.floats(0.2, 5.0))
def test_the_unit_of_depth_does_not_matter(factor):
    """Monocular training has no unit: depth and motion may both be any times as large."""
    assert symptoms(ground() * factor, shift=0.3 * factor) == []
    assert len(symptoms(ground() * factor, shift=1e-5 * factor)) == 1


@given(st.floats(0, 3.1), st.integers(0, 2))
def test_rotation_angles_are_those_of_the_axis_angle(angle, axis):
    vector = torch.zeros(3)
    vector[axis] = angle
    R = pose_matrix(vector, torch.zeros(3))[:3, :3]
    assert rotation_angle(R).item() == pytest.approx(angle, abs=2e-3)


def test_without_temporal_sources_motion_is_not_judged():
    disp = torch.rand(2, 1, H, W)
    rig = torch.eye(4).repeat(2, 1, 1, 1)
    terms = LossTerms(torch.tensor(0.1), torch.tensor([0.1]), (), ())
    signs = signs_of(Prediction((disp,), rig), terms, 0.1, 100.0, stereo=True)
    assert all(math.isnan(one.shift) and math.isnan(one.turn) for one in signs)
    assert all(0 < one.contrast and 0 <= one.holes <= 1 for one in signs)


def test_training_says_so_after_the_epoch(monkeypatch, capsys, sample, short_split, tmp_path):
    """Nothing can be learnt so slowly: depth is as flat as a new network makes it."""
    run(monkeypatch, "train", "--data_path", sample, "--split", short_split, *TINY, "--num_epochs",
        1, "--learning_rate", 1e-8, "--log_dir", tmp_path)  # fmt: skip
    out = capsys.readouterr().out
    epoch, warning = out.index("epoch 1/1"), out.index("WARNING: ")
    assert epoch < warning and f"{PAGE}#depth-is-the-same-everywhere" in out[warning:]


def test_what_the_mask_hides_is_no_sign():
    depth, valid = ground().clone(), torch.ones(H, W, dtype=torch.bool)
    depth[-14:-4, 20:44] = 95.0
    valid[-14:-4, 20:44] = False
    assert "are holes" in symptoms(depth)[0]
    assert symptoms(depth, valid=valid) == []
    assert symptoms(valid=torch.zeros(H, W, dtype=torch.bool)) == []  # nothing to be seen


def test_translations_of_posecnn_are_in_units_of_the_mean_inverse_depth():
    depth = ground()
    mean = (1 / depth).mean().item()
    assert symptoms(depth, shift=40.0 / mean)[0].count("explodes")
    for shift in (0.3, 1e-5, 40.0):
        scaled = symptoms(depth, shift=shift / mean, scale_translation=True)
        assert scaled == symptoms(depth, shift=shift)


@given(st.integers(0, 2**31))
def test_psnr_does_not_see_the_own_vehicle(seed):
    torch.manual_seed(seed)
    color, warped = torch.rand(2, 3, 3, 8, 8), torch.rand(2, 2, 3, 8, 8)
    valid = torch.rand(2, 8, 8) < 0.7
    painted = torch.where(valid[:, None, None], color, 0.5)
    terms = LossTerms(torch.tensor(0.1), torch.tensor([0.1]), (warped,), ())
    assert reconstruction_psnr(color, terms, valid) == reconstruction_psnr(painted, terms, valid)
    everywhere = torch.ones_like(valid)
    assert reconstruction_psnr(color, terms, everywhere) == reconstruction_psnr(color, terms, None)
