"""Agreement with the figures of the published method (tests/golden/README.md)."""

import numpy as np
import pytest
import torch
from conftest import golden
from golden import recipe

from layers import backproject, disp_to_depth, pose_matrix, project
from losses import SelfSupervisedLoss, edge_aware_smoothness, ssim_distance
from metrics import depth_errors
from networks import DepthDecoder, Monodepth, PoseCNN, PoseDecoder, ResnetEncoder

TAG = "gold-a"
FIGURES = golden("networks_and_losses")
KEYS = golden("keys")


def tensor(name, *shape):
    return torch.from_numpy(recipe.tensor(f"{TAG}/{name}", *shape))


def frames(name, n, height=64, width=192):
    return torch.from_numpy(recipe.frames(f"{TAG}/{name}", n, height, width))


def load(module, name, template=None):
    template = KEYS[template] if template else module.state_dict()
    weights = recipe.state_dict(template, f"{TAG}/{name}")
    module.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in weights.items()})
    return module


def agrees(actual, summary, rtol=1e-5, atol=None):
    """Compare a tensor with a recorded summary {shape_numel, mean, std, min, max, at}.

    Relative to each value, and by default also to the map's own spread: values near zero are
    differences of larger ones.
    """
    atol = 1e-5 * summary["std"] if atol is None else atol
    flat = actual.detach().reshape(-1).double()
    assert flat.numel() == summary["shape_numel"]
    got = [flat.mean(), flat.std(), flat.min(), flat.max()]
    want = [summary[k] for k in ("mean", "std", "min", "max")]
    got += [flat[int(i)] for i in summary["at"]]
    want += list(summary["at"].values())
    np.testing.assert_allclose([float(x) for x in got], want, rtol=rtol, atol=atol)


def test_layers():
    figures = FIGURES["layers"]
    x = tensor("x", 2, 3, 24, 40)
    y = (x + 0.1 * tensor("y", 2, 3, 24, 40)).clamp(0, 1)
    disp = tensor("disp", 2, 1, 24, 40)
    aa, tr = tensor("aa", 3, 1, 3)[:, 0] - 0.5, tensor("tr", 3, 1, 3)[:, 0] - 0.5
    K = torch.tensor([[0.58 * 40, 0, 20], [0, 1.92 * 24, 12], [0, 0, 1]]).expand(2, 3, 3)

    agrees(ssim_distance(x, y), figures["ssim"])
    assert edge_aware_smoothness(disp, x).item() == pytest.approx(figures["smooth"], rel=1e-5)
    scaled_disp, depth = disp_to_depth(disp, 0.1, 100.0)
    agrees(scaled_disp, figures["scaled_disp"])
    agrees(depth, figures["depth"])
    np.testing.assert_allclose(pose_matrix(aa, tr), figures["T"], atol=1e-6)
    np.testing.assert_allclose(pose_matrix(aa, tr, invert=True), figures["T_inv"], atol=1e-6)
    points = backproject(depth, torch.linalg.inv(K))
    agrees(points, figures["points"])
    agrees(project(points, K, pose_matrix(aa[:2] * 0.1, tr[:2] * 0.1), 24, 40), figures["grid"])
    errors = depth_errors(gt=(depth + 0.5).numpy(), pred=(1.1 * depth + 0.3).numpy())
    np.testing.assert_allclose(errors, figures["errors"], rtol=1e-5)


@pytest.mark.parametrize("layers", [18, 50])
@torch.no_grad()
def test_depth_networks(layers):
    encoder = load(ResnetEncoder(layers), f"encoder{layers}", f"encoder{layers}").eval()
    decoder = load(DepthDecoder(encoder.channels), f"depth{layers}", f"depth{layers}").eval()
    features = encoder(frames("im", 2))
    for feature, summary in zip(features, FIGURES["layers"][f"feat{layers}"], strict=True):
        agrees(feature, summary)
    for scale, disp in enumerate(decoder(features)):
        agrees(disp, FIGURES["layers"][f"disp{layers}"][str(scale)])


@torch.no_grad()
def test_pose_networks():
    figures = FIGURES["layers"]
    pair = frames("im", 2).flatten(0, 1)[None]
    encoder = load(ResnetEncoder(18, num_images=2), "pose_encoder", "pose_encoder").eval()
    decoder = load(PoseDecoder(512), "pose", "pose").eval()
    posecnn = load(PoseCNN(2), "posecnn", "posecnn").eval()
    for name, six in (("pose", decoder([encoder(pair)[-1]])), ("posecnn", posecnn(pair))):
        want = np.concatenate([figures[name]["axisangle"], figures[name]["translation"]], -1)
        np.testing.assert_allclose(six, want.squeeze(2), rtol=1e-5)


# name: (model options, loss options)
CONFIGURATIONS = {
    "default": ({}, {}),
    "avg_reprojection": ({}, {"avg_reprojection": True}),
    "disable_automasking": ({}, {"automasking": False}),
    "no_ssim": ({}, {"use_ssim": False}),
    "v1_multiscale": ({}, {"v1_multiscale": True}),
    "predictive_mask": ({"predictive_mask": True}, {"automasking": False}),
    "posecnn": ({"pose_model_type": "posecnn"}, {"scale_translation": True}),
    "shared": ({"pose_model_type": "shared"}, {}),
    "stereo_mono": ({"stereo": True}, {"stereo": True}),
    "baseline": ({}, {"avg_reprojection": True, "automasking": False, "v1_multiscale": True}),
    "resnet50": ({"num_layers": 50}, {}),
}


def test_every_configuration_is_compared():
    assert CONFIGURATIONS.keys() == FIGURES["train"].keys()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_training_step(name):
    model_options, loss_options = CONFIGURATIONS[name]
    figures = FIGURES["train"][name]
    model = Monodepth(**model_options).train()
    for child, network in model.named_children():
        load(network, child)
    sequence = frames("seq", 6)
    picks = [[1, 0, 2], [3, 2, 4]]
    stereo_T = None
    if model.stereo:
        picks = [[1, 0, 2, 3], [3, 2, 4, 5]]
        stereo_T = torch.eye(4).repeat(2, 1, 1)
        stereo_T[:, 0, 3] = -0.1
    color = torch.stack([sequence[pick] for pick in picks])
    H, W = color.shape[-2:]
    K = torch.tensor([[0.58 * W, 0, 0.5 * W], [0, 1.92 * H, 0.5 * H], [0, 0, 1]]).expand(2, 3, 3)

    prediction = model(color, stereo_T)
    terms = SelfSupervisedLoss(**loss_options)(*prediction, color=color, K=K)
    terms.total.backward()

    assert terms.total.item() == pytest.approx(figures["loss"], abs=2e-6)
    for scale, value in enumerate(terms.per_scale):
        assert value.item() == pytest.approx(figures[f"loss/{scale}"], abs=2e-6)
    sources = ["-1", "1", "s"][: prediction.T.shape[1]]
    for source, T in figures["cam_T_cam"].items():
        got = prediction.T[:, sources.index(source)].detach()
        np.testing.assert_allclose(got, T, atol=1e-6)
    for key, summary in figures["warped"].items():
        source, scale = key.split("/")
        agrees(terms.warped[int(scale)][:, sources.index(source)], summary, 0, 1e-5)
    tolerance = 1e-2 if terms.automask else 1e-4
    for child, network in model.named_children():
        squares = [p.grad.square().sum() for p in network.parameters() if p.grad is not None]
        norm = torch.stack(squares).sum().sqrt().item()
        assert norm == pytest.approx(figures["grad_norm"][child], rel=tolerance), child
