import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

from building import build_loss, build_model
from options import (
    EvalDepthOptions,
    EvalPoseOptions,
    ExportOptions,
    TrainOptions,
    describe,
    parse,
    to_json,
)

ROOT = Path(__file__).parent.parent


def refused(capsys, cls, *argv):
    """The one line that an options error prints."""
    with pytest.raises(SystemExit) as caught:
        parse(cls, list(argv))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_defaults_are_those_of_the_paper():
    options = parse(TrainOptions, [])
    assert (options.height, options.width, options.batch_size) == (192, 640, 12)
    assert (options.learning_rate, options.num_epochs) == (1e-4, 20)
    assert (options.scheduler_step_size, options.disparity_smoothness) == ((15,), 1e-3)
    assert (options.frame_ids, options.scales) == ((0, -1, 1), (0, 1, 2, 3))
    assert (options.num_layers, options.weights_init, options.split) == (
        18,
        "pretrained",
        "eigen_zhou",
    )


def test_nyuv2_has_its_own_defaults_which_flags_override():
    options = parse(TrainOptions, ["--dataset", "nyuv2"])
    assert (options.split, options.data_path) == ("nyuv2", Path("nyuv2"))
    assert (options.width, options.height) == (640, 480)
    assert (options.min_depth, options.max_depth) == (0.1, 10)
    assert (options.weights_init, options.nyuv2_neighbours) == ("scratch", "scene")
    assert (options.batch_size, options.num_epochs, options.learning_rate) == (12, 20, 1e-4)
    argv = "--max_depth 100 --dataset nyuv2 --height 96 --weights_init pretrained --split own"
    options = parse(TrainOptions, argv.split())
    assert parse(TrainOptions, ["--split", "nyuv2"]).dataset == "nyuv2"
    assert (options.max_depth, options.height, options.width) == (100, 96, 640)
    assert (options.weights_init, options.split) == ("pretrained", "own")
    raw = parse(TrainOptions, ["--dataset", "nyuv2_raw"])
    assert (raw.width, raw.height, raw.max_depth) == (384, 288, 10)
    assert (raw.intrinsics, raw.split, raw.weights_init) == ("calib", "nyuv2_raw", "pretrained")


@pytest.mark.parametrize("split", ["nyuv2", "nyuv2_official", "nyuv2_report"])
def test_evaluation_and_export_take_the_data_set_of_the_benchmark(split):
    options = parse(EvalDepthOptions, ["--eval_split", split, "--load_weights_folder", "w"])
    assert (options.dataset, options.data_path) == ("nyuv2", Path("nyuv2"))
    assert options.max_depth == 10 and options.eval_mono
    options = parse(ExportOptions, ["--split", split])
    assert (options.dataset, options.data_path) == ("nyuv2", Path("nyuv2"))
    for path in (f"{split}/", str(ROOT / "splits" / split)):
        assert parse(ExportOptions, ["--split", path]).data_path == Path("nyuv2")
    kitti = parse(ExportOptions, ["--split", "eigen_benchmark"])
    assert (kitti.dataset, kitti.data_path) == ("kitti", ROOT / "kitti_data")


def test_help_shows_the_defaults_of_each_data_set(capsys):
    with pytest.raises(SystemExit):
        parse(TrainOptions, ["-h"])
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "(default: 192; with nyuv2: 480; with nyuv2_raw: 288)",
        "(default: 100.0; with nyuv2: 10.0; with nyuv2_raw: 10.0)",
        "(default: pretrained; with nyuv2: scratch)",
        "with nyuv2: nyuv2;",
    ):
        assert words in text


def test_every_option_is_described_at_the_start():
    options = parse(TrainOptions, ["--dataset", "nyuv2", "--scheduler_step_size", "26", "36"])
    text = " ".join(describe(options).split())
    for field in dataclasses.fields(options):
        assert f"{field.name} " in text, field.name
    for words in (
        "height 480", "width 640", "max_depth 10.0", "weights_init scratch", "split nyuv2",
        "data_path nyuv2", "png off", "load_weights_folder none", "scheduler_step_size 26 36",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.args")), ids=lambda p: p.name
)
def test_recipes_parse(path):
    assert parse(TrainOptions, [f"@{path}", "--num_epochs", "3"]).num_epochs == 3


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--height 200", "--height must be a multiple of 32"),
        ("--width 32", "--width must be a multiple of 32 from 64 on"),
        ("--frame_ids -1 0 1", "--frame_ids must start with 0"),
        ("--frame_ids 0 1 1", "twice"),
        ("--frame_ids 0", "needs --use_stereo"),
        ("--scales 1 2", "--scales"),
        ("--scales 3 2 1 0", "--scales"),
        ("--scales 0 4", "--scales"),
        ("--predictive_mask", "add --disable_automasking"),
        ("--pose_model_input all --frame_ids 0 1", "--pose_model_input all"),
        ("--disparity_smoothness nan", "--disparity_smoothness must be 0 or more"),
        ("--min_depth 5 --max_depth 2", "--min_depth"),
        ("--min_depth 0", "--min_depth"),
        ("--learning_rate nan", "--learning_rate"),
        ("--batch_size 0", "--batch_size"),
        ("--num_workers -2", "--num_workers"),
        ("--num_layers 17", "--num_layers"),
        ("--model_name a/b", "--model_name"),
        ("--models_to_load depth", "needs --load_weights_folder"),
        ("--freeze pose_encoder --pose_model_type shared", "--freeze pose_encoder"),
        ("--freeze encoder depth pose_encoder pose", "nothing to train"),
        ("--freeze pose --frame_ids 0 --use_stereo", "--freeze pose"),
        ("--dataset nyuv2 --use_stereo", "NYUv2 has one camera"),
        ("--dataset nyuv2_raw --use_stereo", "NYUv2 has one camera"),
        ("--dataset nyuv2_raw --intrinsics nominal", "leave the flag out"),
        ("--nyuv2_neighbours any", "about --dataset nyuv2"),
        ("--dataset nyuv2_raw --nyuv2_neighbours any", "about --dataset nyuv2"),
        ("--dataset kitti --split nyuv2", "split nyuv2 is of --dataset nyuv2"),
        ("--dataset nyuv2_raw --split nyuv2_official", "is of --dataset nyuv2"),
        ("--dataset nyuv3", "nyuv3"),
        ("--scheduler_step_size 0", "--scheduler_step_size must be ascending"),
        ("--scheduler_step_size 36 26", "--scheduler_step_size must be ascending"),
        ("--scheduler_step_size 26 26", "not 26 26"),
        ("--no_such_flag", "--no_such_flag"),
        ("--split", "--split"),
        ("@missing.args", "missing.args"),
    ],
)
def test_bad_training_options_are_refused_in_one_line(capsys, argv, words):
    assert words in refused(capsys, TrainOptions, *argv.split())


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--load_weights_folder w", "choose one of --eval_mono and --eval_stereo"),
        ("--load_weights_folder w --eval_mono --eval_stereo", "choose one"),
        ("--eval_mono", "--load_weights_folder"),
        ("--load_weights_folder w --eval_split nyuv2 --eval_stereo", "NYUv2 has one camera"),
        ("--load_weights_folder w --eval_split nyuv2 --dataset kitti", "is of --dataset nyuv2"),
        ("--load_weights_folder w --dataset nyuv2_raw", "has no benchmark: give --eval_split"),
        ("--ext_disp_to_eval d --eval_split nyuv2 --max_depth 100", "a file is scored as is"),
        ("--eval_mono --load_weights_folder w --ext_disp_to_eval d", "give one of"),
        ("--eval_mono --ext_disp_to_eval d --post_process", "--post_process"),
        ("--eval_mono --ext_disp_to_eval d --save_pred_disps", "--save_pred_disps"),
        ("--eval_mono --load_weights_folder w --no_eval", "--no_eval"),
        ("--eval_stereo --load_weights_folder w --pred_depth_scale_factor 2", "--eval_stereo"),
        ("--eval_mono --load_weights_folder w --pred_depth_scale_factor 0", "scale_factor"),
        ("--eval_mono --load_weights_folder w --model_name mono_640x192", "two choices"),
        ("--eval_mono --load_weights_folder w --models_url u", "--models_url needs"),
        ("--eval_stereo --load_weights_folder w --scale_split s", "give one"),
        ("--eval_mono --ext_disp_to_eval d --scale_split s", "--scale_split"),
        ("--eval_mono --load_weights_folder w --eval_eigen_to_benchmark", "--ext_disp_to_eval"),
        ("--eval_mono --ext_disp_to_eval d --num_layers 50", "--num_layers"),
        ("--eval_mono --load_weights_folder w --no_eval --save_pred_disps --gt_file g", "gt_file"),
    ],
)
def test_bad_evaluation_options_are_refused_in_one_line(capsys, argv, words):
    assert words in refused(capsys, EvalDepthOptions, *argv.split())


@pytest.mark.parametrize("split", ["eigen", "odom_", "odom_x"])
def test_bad_sequences_are_refused_in_one_line(capsys, split):
    line = refused(capsys, EvalPoseOptions, "--load_weights_folder", "w", "--eval_split", split)
    assert f"'{split}'" in line


def test_files_of_flags_that_are_broken_are_refused_in_one_line(capsys, tmp_path):
    path = tmp_path / "flags.args"
    for content, words in (
        (f"@{path}".encode(), "names itself"),
        (b"\xff\xfe\x00", "not a text file"),
        (b'--model_name "open', "closing quotation"),
    ):
        path.write_bytes(content)
        assert words in refused(capsys, TrainOptions, f"@{path}").lower()


def test_help_shows_only_what_applies(capsys):
    for cls, there, absent in (
        (TrainOptions, "--learning_rate", "--eval_mono"),
        (EvalDepthOptions, "--eval_mono", "--learning_rate"),
        (ExportOptions, "--depth_axis", "--batch_size"),
    ):
        with pytest.raises(SystemExit):
            parse(cls, ["-h"])
        text = capsys.readouterr().out
        assert there in text and absent not in text


def test_options_are_frozen_and_written_as_plain_values():
    options = parse(TrainOptions, ["--data_path", "somewhere", "--frame_ids", "0", "-1"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.height = 1
    assert to_json(options)["data_path"] == "somewhere"
    assert options.frame_ids == (0, -1)


SWITCHES = ("v1_multiscale", "avg_reprojection", "disable_automasking", "no_ssim")
CHOICES = {
    "pose_model_type": ("separate_resnet", "shared", "posecnn"),
    "pose_model_input": ("pairs", "all"),
    "predictive_mask": (False, True),
    "frame_ids": ((0, -1, 1), (0,), (0, 1)),
    "use_stereo": (False, True),
    "scales": ((0, 1, 2, 3), (0, 2)),
}
NETWORKS = [dict(zip(CHOICES, v, strict=True)) for v in itertools.product(*CHOICES.values())]


def accepted(**values):
    try:
        return TrainOptions(height=64, width=64, weights_init="scratch", **values)
    except ValueError:
        return None


def network_name(networks):
    return "-".join(str(v).replace(" ", "") for v in networks.values())


@pytest.mark.parametrize("networks", NETWORKS, ids=network_name)
def test_every_accepted_combination_of_ablations_runs_a_step(networks):
    """Each set of networks once, its prediction through every loss that goes with it."""
    choices = [
        dict(zip(SWITCHES, s, strict=True)) for s in itertools.product((False, True), repeat=4)
    ]
    accepted_options = [o for c in choices if (o := accepted(**networks, **c)) is not None]
    alone = len(networks["frame_ids"]) == 1 and not networks["use_stereo"]
    if alone or (networks["pose_model_input"] == "all" and len(networks["frame_ids"]) == 2):
        assert not accepted_options
        return
    assert len(accepted_options) == (8 if networks["predictive_mask"] else 16)
    model = build_model(accepted_options[0])
    assert {name for name, _ in model.named_children()} == set(accepted_options[0].networks)
    frames = len(networks["frame_ids"]) + networks["use_stereo"]
    color = torch.rand(1, frames, 3, 64, 64)
    K = torch.tensor([[[40.0, 0, 32], [0, 40, 32], [0, 0, 1]]])
    stereo_T = torch.eye(4)[None].clone()
    stereo_T[0, 0, 3] = -0.1
    prediction = model(color, stereo_T if networks["use_stereo"] else None)
    leaves = [t.detach().requires_grad_() for t in (*prediction.disps, *prediction.masks)]
    disps, masks = leaves[: len(prediction.disps)], leaves[len(prediction.disps) :]
    T = prediction.T.detach().requires_grad_()
    for options in accepted_options:
        terms = build_loss(options)(tuple(disps), T, tuple(masks), color, K)
        terms.total.backward()
        assert terms.total.isfinite()
    given = [leaf.grad for leaf in leaves] + ([T.grad] if T.grad is not None else [])
    outputs = [*prediction.disps, *prediction.masks, prediction.T]
    needed = [o for o in outputs if o.requires_grad]
    torch.autograd.backward(needed, given[: len(needed)])
    for name, network in model.named_children():
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients and all(g.isfinite().all() for g in gradients), name
