"""Exported networks do what torch's do, and say what they are."""

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import fails, run

import checkpoint
from metric_scale import Scale, write_scale
from networks import Monodepth
from onnx_network import OnnxDepth
from predictor import DepthPredictor
from utils import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TOOL = "tools.export_onnx"
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


def saved(folder, **options):
    """Weights with batch-norm statistics that are not all alike."""
    torch.manual_seed(1)
    model = Monodepth(**options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    checkpoint.save_weights(folder, model, 64, 96, False)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("weights"), frame_ids=(0, 1))
    write_scale(folder, Scale(5.25, 0.031, "camera height"))
    with pytest.MonkeyPatch.context() as patch:
        run(patch, TOOL, "--load_weights_folder", folder)
    return folder


@pytest.fixture(scope="module")
def pictures(sample):
    files = sorted((sample / DRIVE / "image_02/data").iterdir())[:3]
    return [Image.open(path).convert("RGB") for path in files]


def check_depth(folder, pictures):
    """Two batch sizes, of the street and of noise, within 1e-4 of torch."""
    net = OnnxDepth(folder / "depth.onnx")
    model = checkpoint.load_depth_model(folder).model.eval()
    onnx.checker.check_model(onnx.load(folder / "depth.onnx"), full_check=True)
    small = [np.asarray(picture.resize((96, 64))) for picture in pictures]
    street = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
    for images in (torch.rand(1, 3, 64, 96), torch.rand(5, 3, 64, 96), street):
        with torch.no_grad():
            expected = model.disparity(images)
        assert net(images).shape == expected.shape
        assert (net(images) - expected).abs().max() < 1e-4


def test_depth_is_torchs_for_any_batch(weights, pictures):
    check_depth(weights, pictures)


@pytest.mark.slow
def test_deeper_encoders_too(monkeypatch, capsys, tmp_path, pictures):
    folder = saved(tmp_path / "weights", num_layers=50, frame_ids=(0,))
    run(monkeypatch, TOOL, "--load_weights_folder", folder)
    assert not (folder / "pose.onnx").exists()
    check_depth(folder, pictures)


@pytest.mark.parametrize("kind", ["separate_resnet", pytest.param("shared", marks=pytest.mark.slow),
                                  pytest.param("posecnn", marks=pytest.mark.slow)])  # fmt: skip
def test_motion_is_torchs_for_any_batch(monkeypatch, tmp_path, kind):
    folder = saved(tmp_path / "weights", frame_ids=(0, 1), pose_model_type=kind)
    run(monkeypatch, TOOL, "--load_weights_folder", folder, "--networks", "pose")
    assert not (folder / "depth.onnx").exists()
    model, *_ = checkpoint.load_pose_model(folder)
    session = onnxruntime.InferenceSession(folder / "pose.onnx")
    for batch in (1, 4):
        first, second = torch.rand(2, batch, 3, 64, 96)
        with torch.no_grad():
            expected = model.eval().relative_pose(first, second)
        feeds = {"first": first.numpy(), "second": second.numpy()}
        (got,) = session.run(["T"], feeds)
        assert got.shape == (batch, 4, 4) and np.abs(got - expected.numpy()).max() < 1e-4


def test_the_file_says_what_it_is(weights):
    net = OnnxDepth(weights / "depth.onnx")
    assert (net.height, net.width, net.min_depth, net.max_depth) == (64, 96, 0.1, 100.0)
    assert net.scale == Scale(5.25, 0.031, "camera height")


def test_prediction_needs_no_weights_of_torch(monkeypatch, capsys, weights, pictures, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    path = folder / "depth.onnx"
    path.write_bytes((weights / "depth.onnx").read_bytes())
    pictures[0].save(folder / "photo.png")
    argv = ["--image_path", folder / "photo.png", "--uncertainty", "--metric", "--post_process"]
    run(monkeypatch, "predict", *argv, "--onnx", path)
    assert "metres x 5.25 (camera height, spread 3.1%)" in capsys.readouterr().out
    got = np.load(folder / "photo_disp.npy")[0, 0]
    predictor = DepthPredictor.load(weights)
    expected = predictor.predict(pictures[:1], post_process=True).disps[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_what_differs_from_torch_is_not_written(monkeypatch, capsys, weights, tmp_path):
    import tools.export_onnx as tool

    monkeypatch.setattr(tool, "LARGEST_ERROR", 0.0)
    line = fails(monkeypatch, capsys, TOOL, "--load_weights_folder", weights, "--out",
                 tmp_path / "out", "--networks", "depth")  # fmt: skip
    assert "depth.onnx: not written, for it differs from torch" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "--load_weights_folder --model_name is required"),
        (["--load_weights_folder", "nowhere"], "nowhere"),
        (["--load_weights_folder", "WEIGHTS", "--opset", 9], "--opset 9: the exporter writes 18"),
        (["--load_weights_folder", "WEIGHTS", "--networks", "no"], "--networks"),
        (["--load_weights_folder", "WEIGHTS", "--out", "WEIGHTS/depth.pth"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported_says_why(monkeypatch, capsys, weights, argv, words):
    argv = [str(each).replace("WEIGHTS", str(weights)) for each in argv]
    assert words in fails(monkeypatch, capsys, TOOL, *argv)


def test_other_files_are_refused_in_one_line(weights, tmp_path):
    good = (weights / "depth.onnx").read_bytes()
    model = onnx.load(weights / "depth.onnx")
    del model.metadata_props[:]
    pose = (weights / "pose.onnx").read_bytes()
    path = tmp_path / "depth.onnx"
    with pytest.raises(UserError, match="no such file"):
        OnnxDepth(path)
    for content, words in (
        (b"", "cannot be read as ONNX"),
        (good[:5000], "cannot be read as ONNX"),
        (b"garbage", "cannot be read as ONNX"),
        (model.SerializeToString(), "is no depth network"),
        (pose, "is no depth network"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            OnnxDepth(path)
        assert "\n" not in str(caught.value)


def test_without_onnxruntime_it_says_how_to_get_it(monkeypatch, weights):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install"):
        OnnxDepth(weights / "depth.onnx")
