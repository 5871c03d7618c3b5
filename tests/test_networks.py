import pytest
import torch
from conftest import golden

import networks.resnet_encoder
from networks import DepthDecoder, Monodepth, PoseCNN, PoseDecoder, ResnetEncoder
from utils import UserError

KEYS = golden("keys")


def shapes(module):
    return {key: list(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize(
    "name, make",
    [
        ("encoder18", lambda: ResnetEncoder(18)),
        ("encoder50", lambda: ResnetEncoder(50)),
        ("pose_encoder", lambda: ResnetEncoder(18, num_images=2)),
        ("depth18", lambda: DepthDecoder(ResnetEncoder(18).channels)),
        ("depth50", lambda: DepthDecoder(ResnetEncoder(50).channels)),
        ("predictive_mask", lambda: DepthDecoder(ResnetEncoder(18).channels, out_channels=2)),
        ("pose", lambda: PoseDecoder(512)),
        ("pose_shared", lambda: PoseDecoder(512, num_inputs=2, num_poses=1)),
        ("posecnn", lambda: PoseCNN(2)),
    ],
)
def test_keys_and_shapes_are_those_of_the_released_files(name, make):
    assert shapes(make()) == KEYS[name]


@pytest.mark.parametrize("layers", [18, 34, 50, 101, 152])
@torch.no_grad()
def test_features_shrink_by_two(layers):
    encoder = ResnetEncoder(layers).eval()
    features = encoder(torch.rand(1, 3, 64, 96))
    for i, (feature, channels) in enumerate(zip(features, encoder.channels, strict=True)):
        assert feature.shape == (1, channels, 64 // 2 ** (i + 1), 96 // 2 ** (i + 1))


def test_unknown_depth_of_a_resnet_is_refused():
    with pytest.raises(ValueError, match="17"):
        ResnetEncoder(17)


@torch.no_grad()
def test_stacked_images_start_with_the_response_of_one(monkeypatch):
    single = ResnetEncoder(18).eval()
    monkeypatch.setattr(
        networks.resnet_encoder,
        "load_imagenet",
        lambda network, name: network.load_state_dict(single.encoder.state_dict()),
    )
    triple = ResnetEncoder(18, pretrained=True, num_images=3).eval()
    image = torch.rand(1, 3, 64, 64)
    for one, three in zip(single(image), triple(image.repeat(1, 3, 1, 1)), strict=True):
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-4)


def test_without_network_the_way_out_is_named(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="--weights_init scratch") as caught:
        ResnetEncoder(18, pretrained=True)
    assert str(tmp_path / "checkpoints" / "resnet18-") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_cache_of_weights_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir()
    for content in (b"", b"garbage"):
        cached.write_bytes(content)
        with pytest.raises(UserError, match="--weights_init scratch"):
            ResnetEncoder(18, pretrained=True)
    torch.save({"other": torch.zeros(1)}, cached)
    with pytest.raises(UserError, match="--weights_init scratch"):
        ResnetEncoder(18, pretrained=True)


@pytest.mark.parametrize("scales", [(0,), (0, 2), (0, 1, 2, 3)])
@torch.no_grad()
def test_decoder_has_a_head_for_each_asked_scale(scales):
    encoder = ResnetEncoder(18).eval()
    decoder = DepthDecoder(encoder.channels, scales)
    assert len(decoder.decoder) == 10 + len(scales)
    for scale, disp in zip(scales, decoder(encoder(torch.rand(1, 3, 64, 96))), strict=True):
        assert disp.shape == (1, 1, 64 // 2**scale, 96 // 2**scale)
        assert 0 < disp.min() and disp.max() < 1


@pytest.mark.parametrize("kind", ["separate_resnet", "shared", "posecnn"])
@torch.no_grad()
def test_pairs_are_seen_in_temporal_order(kind):
    """The transform to a preceding frame is the inverse of the one from it."""
    model = Monodepth(frame_ids=(0, -1, 1), pose_model_type=kind).eval()
    a, b, c = torch.rand(3, 1, 3, 64, 64)
    T = model(torch.stack([b, a, c], 1)).T[0]
    torch.testing.assert_close(T[1], model.relative_pose(b, c)[0], atol=1e-6, rtol=1e-5)
    earlier = model.relative_pose(a, b)[0]
    torch.testing.assert_close(T[0] @ earlier, torch.eye(4), atol=1e-6, rtol=0)
    assert (T[0] - torch.eye(4)).abs().max() > 1e-6


@torch.no_grad()
def test_a_batch_is_its_samples():
    model = Monodepth(stereo=True, predictive_mask=True).eval()
    color, stereo_T = torch.rand(2, 4, 3, 64, 64), torch.rand(2, 4, 4)
    together = model(color, stereo_T)
    for i in range(2):
        alone = model(color[i : i + 1], stereo_T[i : i + 1])
        torch.testing.assert_close(together.T[i : i + 1], alone.T, atol=1e-6, rtol=1e-4)
        for x, y in zip(together.disps + together.masks, alone.disps + alone.masks, strict=True):
            torch.testing.assert_close(x[i : i + 1], y, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.T[:, -1], stereo_T)
    assert together.masks[0].shape == (2, 3, 64, 64)
    torch.testing.assert_close(
        model.disparity(color[:, 0]), together.disps[0], atol=1e-5, rtol=1e-4
    )


def test_all_frames_at_once_predict_one_pose_each():
    for kind in ("separate_resnet", "shared", "posecnn"):
        model = Monodepth(frame_ids=(0, -2, -1, 1), pose_model_type=kind, pose_model_input="all")
        assert model(torch.rand(2, 4, 3, 64, 64)).T.shape == (2, 3, 4, 4)
        with pytest.raises(ValueError, match="pairs"):
            model.relative_pose(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
