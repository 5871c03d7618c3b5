"""ONNX files compute what the weights do, say what they are, and bad ones are refused."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import fails, run

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import checkpoint  # noqa: E402
from metric_scale import Scale, write_scale  # noqa: E402
from networks import Monodepth  # noqa: E402
from onnx_network import Description, OnnxDepth  # noqa: E402
from predictor import DepthPredictor  # noqa: E402
from tools import export_onnx  # noqa: E402
from utils import UserError  # noqa: E402

TOOL = "tools.export_onnx"
H, W = 64, 96
SCALE = Scale(5.4, math.nan, "stereo baseline")
TIGHT = {"rtol": 0, "atol": 1e-5}
KINDS = ("separate_resnet", "shared", "posecnn")


@torch.no_grad()
def saved(folder, num_layers=18, **options):
    """Weights whose poses are far from the identity, as of no untrained network."""
    model = Monodepth(num_layers, **options)
    if hasattr(model, "pose"):
        last = model.pose.pose_conv if hasattr(model.pose, "pose_conv") else model.pose.net[-1]
        last.bias.copy_(torch.linspace(-30, 60, len(last.bias)))
    checkpoint.save_weights(folder, model, H, W, use_stereo=False)
    return model.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights as a run leaves them, with a scale."""
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_0"
    torch.manual_seed(0)
    saved(folder, pose_model_type="posecnn")
    (folder.parent / "opt.json").write_text(json.dumps({"min_depth": 0.5, "max_depth": 80.0}))
    write_scale(folder, SCALE)
    return folder


@pytest.fixture(scope="module")
def depth_onnx(weights, tmp_path_factory):
    """Its depth.onnx."""
    path = tmp_path_factory.mktemp("onnx") / "depth.onnx"
    exported, *size = export_onnx.load(weights, "depth")
    description = export_onnx.describe(weights, *size)
    export_onnx.write(path, exported, description, export_onnx.OPSET)
    return path


def changed(source, path, change):
    """A copy of an ONNX file after `change(model)`."""
    model = onnx.load(source)
    change(model)
    onnx.save(model, path)
    return path


# Parity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers, batch", [(18, 1), (18, 2), (50, 3)])
@torch.no_grad()
def test_disparities_are_those_of_torch(monkeypatch, capsys, tmp_path, layers, batch):
    model = saved(tmp_path, layers, frame_ids=(0,))
    run(monkeypatch, TOOL, "--load_weights_folder", tmp_path)
    printed = capsys.readouterr().out
    assert str(tmp_path / "depth.onnx") in printed and "opset 18" in printed
    assert [path.name for path in tmp_path.glob("*.onnx*")] == ["depth.onnx"]
    images = torch.rand(batch, 3, H, W)
    network = OnnxDepth(tmp_path / "depth.onnx")
    torch.testing.assert_close(network(images), model.disparity(images), **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_poses_are_those_of_torch(monkeypatch, capsys, tmp_path, kind):
    model = saved(tmp_path, pose_model_type=kind)
    run(monkeypatch, TOOL, "--load_weights_folder", tmp_path, "--networks", "pose")
    assert "pose.onnx" in capsys.readouterr().out
    assert not (tmp_path / "depth.onnx").exists()
    session = onnxruntime.InferenceSession(tmp_path / "pose.onnx")
    for batch in (1, 3):
        first, second = torch.rand(2, batch, 3, H, W)
        (T,) = session.run(["T"], {"first": first.numpy(), "second": second.numpy()})
        torch.testing.assert_close(torch.tensor(T), model.relative_pose(first, second), **TIGHT)
        assert np.abs(T[:, :3, :3] - np.eye(3)).max() > 0.1  # far enough to see a wrong rotation


def test_pictures_give_the_depth_that_the_weights_do(weights, depth_onnx, sample):
    folder = sample / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    images = [Image.open(path) for path in sorted(folder.iterdir())[:2]]
    net = OnnxDepth(depth_onnx)
    depths = (net.min_depth, net.max_depth)
    onnx_predictor = DepthPredictor(net, net.height, net.width, *depths, net.scale)
    predictor = DepthPredictor.load(weights)
    ours, theirs = onnx_predictor.predict(images), predictor.predict(images)
    np.testing.assert_allclose(ours.disps, theirs.disps, rtol=1e-4)
    np.testing.assert_allclose(onnx_predictor(images[0]), predictor(images[0]), rtol=1e-4)


# The file -----------------------------------------------------------------------------------------


def test_the_file_is_valid_whole_and_for_any_batch(depth_onnx):
    model = onnx.load(depth_onnx, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(each.external_data for each in model.graph.initializer)
    (image,), (disp,) = model.graph.input, model.graph.output
    for tensor, name, channels in ((image, "image", 3), (disp, "disp", 1)):
        batch, *rest = tensor.type.tensor_type.shape.dim
        assert tensor.name == name and batch.dim_param == "batch"
        assert [each.dim_value for each in rest] == [channels, H, W]
    assert str(export_onnx.__file__).encode() not in depth_onnx.read_bytes()


def test_the_opset_can_be_chosen(monkeypatch, capsys, weights, tmp_path):
    flags = ("--load_weights_folder", weights, "--networks", "depth", "--out", tmp_path / "new")
    run(monkeypatch, TOOL, *flags, "--opset", 21)
    assert "opset 21" in capsys.readouterr().out
    model = onnx.load(tmp_path / "new" / "depth.onnx")
    assert [each.version for each in model.opset_import if not each.domain] == [21]


def test_what_the_weights_say_of_themselves_is_in_the_file(depth_onnx):
    net = OnnxDepth(depth_onnx)
    assert (net.height, net.width, net.min_depth, net.max_depth) == (H, W, 0.5, 80.0)
    assert net.scale.factor == SCALE.factor and net.scale.source == SCALE.source
    assert math.isnan(net.scale.spread)


@pytest.mark.parametrize("scale", [None, Scale(2.5, 0.07, 'a "measured" wall, 3 m')])
def test_descriptions_read_back_as_they_were(scale):
    described = Description(192, 640, 0.1, 1e-3 + 100 / 3, scale)
    assert Description.parse(described.strings()) == described


@pytest.mark.parametrize(
    "change",
    [
        {"height": None}, {"height": "65"}, {"height": "tall"}, {"width": "32"}, {"width": "8224"},
        {"width": "-64"}, {"width": "9" * 5000}, {"min_depth": "0"}, {"min_depth": "nan"},
        {"min_depth": "90"}, {"max_depth": "inf"}, {"max_depth": ""}, {"scale": ""},
        {"scale": "[" * 100_000}, {"scale": "{}"}, {"scale": "[1]"},
        {"scale": '{"factor": 0, "spread": null, "source": ""}'},
        {"scale": '{"factor": NaN, "spread": null, "source": ""}'},
        {"scale": '{"factor": 1%s, "spread": null, "source": ""}' % ("0" * 400)},
        {"scale": '{"factor": 1, "spread": null, "source": 3}'},
        {"scale": '{"factor": 1, "spread": "wide", "source": ""}'},
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_descriptions_of_nothing_real_are_refused(change):
    strings = Description(192, 640, 0.5, 80.0, SCALE).strings() | change
    with pytest.raises(ValueError):
        Description.parse({key: value for key, value in strings.items() if value is not None})


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.01, math.inf])
def test_what_differs_from_torch_is_not_written(monkeypatch, capsys, weights, tmp_path, gap):
    monkeypatch.setattr(export_onnx, "difference", lambda *_: gap)
    flags = ("--load_weights_folder", weights, "--out", tmp_path)
    line = fails(monkeypatch, capsys, TOOL, *flags)
    assert "depth.onnx: not written" in line and "differs from torch's" in line
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_none_count_as_a_difference():
    values = torch.rand(3)
    assert export_onnx.difference(values, values + 0.5) == pytest.approx(0.5)
    for broken in (values / 0, values / 0 * 0):
        assert not export_onnx.difference(values, broken) < 1e30


def test_graphs_for_one_batch_size_are_not_written(monkeypatch, capsys, weights, tmp_path):
    original = export_onnx.to_onnx

    def fixed(*arguments):
        model = original(*arguments)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        return model

    monkeypatch.setattr(export_onnx, "to_onnx", fixed)
    flags = ("--load_weights_folder", weights, "--out", tmp_path)
    assert "depth.onnx: cannot be run" in fails(monkeypatch, capsys, TOOL, *flags)
    assert not list(tmp_path.iterdir())


def test_what_the_exporter_cannot_do_ends_in_one_line(monkeypatch, capsys, weights, tmp_path):
    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    flags = ("--load_weights_folder", weights, "--out", tmp_path)
    assert "cannot export 'disp' (no such operator)" in fails(monkeypatch, capsys, TOOL, *flags)


def test_what_is_no_valid_onnx_is_not_written(monkeypatch, capsys, weights, tmp_path):
    invalid = onnx.ModelProto()
    monkeypatch.setattr(export_onnx, "to_onnx", lambda *_: invalid)
    flags = ("--load_weights_folder", weights, "--out", tmp_path)
    assert "is no valid ONNX" in fails(monkeypatch, capsys, TOOL, *flags)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_packages_are_named(monkeypatch, capsys, weights, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = fails(monkeypatch, capsys, TOOL, "--load_weights_folder", weights)
    assert package in line and 'pip install -e ".[onnx]"' in line


@pytest.mark.parametrize(
    "argv, words",
    [
        ((), "--load_weights_folder --model_name"),
        (("--load_weights_folder", "x", "--model_name", "y"), "not allowed with"),
        (("--load_weights_folder", "x", "--models_url", "y"), "--models_url needs --model_name"),
        (("--load_weights_folder", "x", "--opset", "11"), "--opset"),
        (("--load_weights_folder", "x", "--networks", "mask"), "--networks"),
    ],
)
def test_wrong_flags_end_in_one_line(monkeypatch, capsys, argv, words):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, TOOL, *argv)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.count("\n") == 1 and words in err


def test_unusable_weights_say_why(monkeypatch, capsys, weights, tmp_path):
    def line(folder, *argv):
        return fails(monkeypatch, capsys, TOOL, "--load_weights_folder", folder, *argv)

    assert "no such weights" in line(tmp_path / "nowhere")
    assert "is no released model" in fails(monkeypatch, capsys, TOOL, "--model_name", "best")
    saved(tmp_path / "depth", frame_ids=(0,))
    assert "pose.pth: no such weights" in line(tmp_path / "depth", "--networks", "pose")
    saved(tmp_path / "all", pose_model_type="posecnn", pose_model_input="all")
    assert "not a pair; --networks depth goes without" in line(tmp_path / "all")
    (tmp_path / "depth" / "depth.onnx").mkdir()
    assert "depth.onnx: is a folder" in line(tmp_path / "depth")
    (tmp_path / "opt.json").write_text(json.dumps({"min_depth": "near"}))
    assert "opt.json" in line(tmp_path / "depth", "--out", tmp_path)
    (tmp_path / "opt.json").unlink()
    (tmp_path / "depth" / "scale.json").write_text("{")
    assert "scale.json: holds no scale" in line(tmp_path / "depth", "--out", tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_damaged_files_are_refused(depth_onnx, tmp_path):
    path = tmp_path / "depth.onnx"
    with pytest.raises(UserError, match="no such file"):
        OnnxDepth(path)
    content = depth_onnx.read_bytes()
    for damaged in (b"", b"no ONNX", content[: len(content) // 2], content[1000:], b"\x08\x0a"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="depth.onnx: cannot be read as ONNX|no depth network"):
            OnnxDepth(path)


def test_other_networks_are_refused(weights, depth_onnx, tmp_path):
    def refused(change, words):
        path = changed(depth_onnx, tmp_path / "other.onnx", change)
        with pytest.raises(UserError, match=words) as caught:
            OnnxDepth(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)

    refused(lambda model: model.ClearField("metadata_props"), "'height' is missing")
    for name, value in (("height", "66"), ("min_depth", "-1"), ("scale", "{")):
        strings = Description(H, W).strings() | {name: value}
        refused(lambda model, s=strings: onnx.helper.set_model_props(model, s), "no depth network")
    others = Description(2 * H, W).strings()
    refused(lambda model: onnx.helper.set_model_props(model, others), r"'image' is not \[batch 3")
    pose, *size = export_onnx.load(weights, "pose")
    export_onnx.write(tmp_path / "pose.onnx", pose, Description(*size), export_onnx.OPSET)
    with pytest.raises(UserError, match="its 'image' is not"):
        OnnxDepth(tmp_path / "pose.onnx")


def small_graph(path, op, *constants):
    """An ONNX file of one operator that claims to be a depth network."""
    real, dims = (
        onnx.TensorProto.FLOAT,
        (("image", ["batch", 3, H, W]), ("disp", ["batch", 1, H, W])),
    )
    image, disp = (onnx.helper.make_tensor_value_info(name, real, shape) for name, shape in dims)
    names = [each.name for each in constants]
    node = onnx.helper.make_node(op, ["image", *names], ["disp"])
    graph = onnx.helper.make_graph([node], "graph", [image], [disp], list(constants))
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.helper.set_model_props(model, Description(H, W).strings())
    onnx.save(model, path)
    return path


def test_graphs_that_do_not_keep_their_word_are_refused(tmp_path):
    integer = onnx.TensorProto.INT64
    shape = onnx.helper.make_tensor("shape", integer, [4], [-1, 7, H, W])
    path = small_graph(tmp_path / "reshape.onnx", "Expand", shape)
    with pytest.raises(UserError, match="reshape.onnx: cannot be"):
        OnnxDepth(path)(torch.rand(1, 3, H, W))
    where = [onnx.helper.make_tensor(n, integer, [1], [v]) for n, v in (("s", 0), ("e", 9))]
    path = small_graph(tmp_path / "slice.onnx", "Slice", *where)  # all 3 channels, not one
    with pytest.raises(UserError, match=r"slice.onnx: (gives \[1, 3|cannot be|no depth)"):
        OnnxDepth(path)(torch.rand(1, 3, H, W))


def test_weights_in_files_elsewhere_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 12)
    (tmp_path / "in").mkdir()
    bias = onnx.helper.make_tensor("bias", onnx.TensorProto.FLOAT, [3, 1, 1], [0, 0, 0])
    path = small_graph(tmp_path / "in" / "depth.onnx", "Add", bias)
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="cannot be read as ONNX"):
        OnnxDepth(path)


def test_images_of_another_size_are_refused(depth_onnx):
    with pytest.raises(ValueError, match=r"\[3 64 96\], not \[3, 64, 64\]"):
        OnnxDepth(depth_onnx)(torch.rand(1, 3, 64, 64))


def test_a_gpu_must_be_known_to_onnxruntime(monkeypatch, depth_onnx):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="onnxruntime-gpu"):
        OnnxDepth(depth_onnx, cuda=True)


def test_onnxruntime_is_named_where_it_is_missing(monkeypatch, depth_onnx):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'onnxruntime .*pip install -e "\.\[onnx\]"'):
        OnnxDepth(depth_onnx)
