import os
import pickle

import pytest
import torch
from conftest import golden

import checkpoint
from networks import Monodepth
from utils import UserError

KEYS = golden("keys")


def saved(folder, **options):
    model = Monodepth(**options)
    checkpoint.save_weights(folder, model, 96, 320, use_stereo=False)
    return model


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_files_have_the_released_layout(tmp_path):
    saved(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [
        "depth.pth",
        "encoder.pth",
        "pose.pth",
        "pose_encoder.pth",
    ]
    templates = (("encoder", "encoder18"), ("depth", "depth18"), ("pose", "pose"))
    for name, template in (*templates, ("pose_encoder", "pose_encoder")):
        state = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        if name == "encoder":
            assert (state.pop("height"), state.pop("width"), state.pop("use_stereo")) == (
                96,
                320,
                False,
            )
        assert {key: list(value.shape) for key, value in state.items()} == KEYS[template]


@pytest.mark.parametrize("options", [{}, {"predictive_mask": True}, {"pose_model_type": "posecnn"}])
def test_weights_read_back_as_they_were(tmp_path, options):
    model = saved(tmp_path, **options)
    other = Monodepth(**options)
    assert not equal(model.state_dict(), other.state_dict())
    checkpoint.load_weights(tmp_path, other)
    assert equal(model.state_dict(), other.state_dict())


def test_stereo_and_input_size_are_kept(tmp_path):
    checkpoint.save_weights(tmp_path, Monodepth(stereo=True), 64, 128, use_stereo=True)
    state = checkpoint.read(tmp_path / "encoder.pth")
    assert (state["height"], state["width"], state["use_stereo"]) == (64, 128, True)


def test_moments_with_plain_step_counts_fit(tmp_path):
    """Older torch saved the step as a number."""
    layer = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    adam.step()
    saved = adam.state_dict()
    for state in saved["state"].values():
        state["step"] = 1
    checkpoint.save(tmp_path / "adam.pth", saved)
    assert checkpoint.load_optimizer(tmp_path / "adam.pth", adam)
    adam.step()


def test_only_the_named_networks_are_loaded(tmp_path):
    model = saved(tmp_path)
    other = Monodepth()
    before = {key: value.clone() for key, value in other.state_dict().items()}
    checkpoint.load_weights(tmp_path, other, ("depth",))
    assert equal(other.depth.state_dict(), model.depth.state_dict())
    assert torch.equal(other.encoder.encoder.conv1.weight, before["encoder.encoder.conv1.weight"])


@pytest.mark.parametrize("layers, scales", [(18, (0,)), (34, (0, 2)), (50, (0, 1, 2, 3))])
def test_depth_models_are_recognised_by_their_files(tmp_path, layers, scales):
    model = saved(tmp_path, num_layers=layers, scales=scales, frame_ids=(0,))
    loaded = checkpoint.load_depth_model(tmp_path)
    assert (loaded.num_layers, loaded.height, loaded.width) == (layers, 96, 320)
    assert loaded.model.depth.scales == scales
    assert equal(loaded.model.depth.state_dict(), model.depth.state_dict())


@pytest.mark.parametrize("layers", [18, 34, 50, 101, 152])
def test_every_resnet_is_told_from_its_keys(tmp_path, layers):
    from networks import ResnetEncoder

    assert checkpoint.resnet_layers(tmp_path, ResnetEncoder(layers).state_dict()) == layers


@pytest.mark.parametrize("kind", ["separate_resnet", "shared", "posecnn"])
@torch.no_grad()
def test_pose_models_are_recognised_by_their_files(tmp_path, kind):
    model = saved(tmp_path, pose_model_type=kind).eval()
    loaded, height, width = checkpoint.load_pose_model(tmp_path)
    assert loaded.pose_model_type == kind and (height, width) == (96, 320)
    pair = torch.rand(2, 1, 3, 96, 320)
    torch.testing.assert_close(loaded.eval().relative_pose(*pair), model.relative_pose(*pair))


def test_pose_networks_of_all_frames_are_refused_for_pairs(tmp_path):
    for kind in ("separate_resnet", "shared", "posecnn"):
        saved(tmp_path / kind, pose_model_type=kind, pose_model_input="all")
        with pytest.raises(UserError, match="3 frames at once"):
            checkpoint.load_pose_model(tmp_path / kind)


def test_weights_of_another_architecture_are_refused_and_nothing_is_loaded(tmp_path):
    saved(tmp_path)
    for other, words in (
        (Monodepth(num_layers=50), "another architecture"),
        (Monodepth(num_layers=34), "is missing"),
        (Monodepth(scales=(0,)), "not expected"),
    ):
        before = {key: value.clone() for key, value in other.state_dict().items()}
        with pytest.raises(UserError, match=words) as caught:
            checkpoint.load_weights(
                tmp_path, other, ("depth",) if len(other.depth.scales) == 1 else ()
            )
        assert "\n" not in str(caught.value)
        assert equal(other.state_dict(), before)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_unreadable_weights_are_refused_and_never_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    path = tmp_path / "depth.pth"
    with pytest.raises(UserError, match="no such weights"):
        checkpoint.read(path)
    for content in (b"", b"garbage", pickle.dumps(Bomb()), pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(UserError, match="depth.pth") as caught:
            checkpoint.read(path)
        assert "\n" not in str(caught.value)
    torch.save(Bomb(), path)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read(path)
    torch.save({0: torch.zeros(3)}, path)
    with pytest.raises(UserError, match="no dictionary"):
        checkpoint.read(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="no dictionary"):
        checkpoint.read(path)
    assert not (tmp_path / "exploded").exists()


def test_encoders_without_input_size_are_refused(tmp_path):
    model = saved(tmp_path, frame_ids=(0,))
    for size in ({}, {"height": 100, "width": 320}, {"height": "96", "width": 320}):
        checkpoint.save(tmp_path / "encoder.pth", model.encoder.state_dict() | size)
        with pytest.raises(UserError, match="height and width"):
            checkpoint.load_depth_model(tmp_path)


def test_optimizer_moments_continue_at_the_new_learning_rate(tmp_path):
    def stepped(rate):
        layer = torch.nn.Linear(3, 2)
        adam = torch.optim.Adam(layer.parameters(), rate)
        layer(torch.ones(1, 3)).sum().backward()
        adam.step()
        return adam

    old = stepped(1e-3)
    checkpoint.save(tmp_path / "adam.pth", old.state_dict())
    fresh = torch.optim.Adam(torch.nn.Linear(3, 2).parameters(), 1e-5)
    assert checkpoint.load_optimizer(tmp_path / "adam.pth", fresh)
    assert fresh.param_groups[0]["lr"] == 1e-5
    ours, theirs = fresh.state_dict()["state"][0], old.state_dict()["state"][0]
    assert torch.equal(ours["exp_avg"], theirs["exp_avg"])
    for broken in (
        {"state": {}},
        {"state": 1, "param_groups": 1},
        {"param_groups": [{"params": [0, 1]}], "state": {7: {}}},
        {"param_groups": [{"params": [0, 1]}], "state": {0: {"exp_avg": torch.zeros(2, 3)}}},
    ):
        checkpoint.save(tmp_path / "broken.pth", broken)
        assert not checkpoint.load_optimizer(tmp_path / "broken.pth", fresh)
    for other in (torch.nn.Linear(4, 2), torch.nn.Linear(3, 2, bias=False)):
        adam = torch.optim.Adam(other.parameters())
        assert not checkpoint.load_optimizer(tmp_path / "adam.pth", adam)
        assert not adam.state_dict()["state"]
