"""Weights on disk, in the layout of the released models: one file per network in a folder.

`encoder.pth` also holds the input's height and width and whether stereo was used; `adam.pth` is the
optimizer's state. What a network looks like is read from the keys and shapes of its file.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from networks import Monodepth
from networks.depth_decoder import CHANNELS
from utils import UserError, atomic_write

BLOCKS = {(2, 2, 2, 2): {3: 18}, (3, 4, 6, 3): {3: 34, 1: 50}, (3, 4, 23, 3): {1: 101},
          (3, 8, 36, 3): {1: 152}}  # fmt: skip
SQUEEZED = 256  # channels of the pose decoder per image
SIZE_KEYS = ("height", "width", "use_stereo")


class DepthModel(NamedTuple):
    """A model with depth weights, and the input size they were trained for."""

    model: Monodepth
    num_layers: int
    height: int
    width: int


def save_weights(folder: Path, model: Monodepth, height: int, width: int, use_stereo: bool) -> None:
    """Write every network of a model into a folder."""
    for name, network in model.named_children():
        state = {
            key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
        }
        if name == "encoder":
            state |= {"height": height, "width": width, "use_stereo": use_stereo}
        save(folder / f"{name}.pth", state)


def save(path: Path, content: Any) -> None:
    """torch.save that never leaves half a file, and lets a full disk show as such."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """A dictionary of tensors and plain values, never unpickling anything else.

    Raises:
        UserError: missing, damaged (a checksum is wrong), or holding something else.
    """
    try:
        if zipfile.is_zipfile(path):  # older files are none, and have no checksums
            with zipfile.ZipFile(path) as archive:  # torch writes them, but does not look at them
                if any(entry.compress_type for entry in archive.infolist()):
                    raise ValueError("compressed, as torch's files are not")  # a bomb, perhaps
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"wrong checksum of '{damaged}'")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights; is --load_weights_folder right?") from None
    except Exception as error:  # torch.load has no one error for a bad file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read as weights ({reason})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: holds no dictionary of weights")
    return content


def training_options(folder: Path) -> dict[str, Any]:
    """The options of the run that weights in its folder are of; empty where they are not known."""
    try:
        options = json.loads((folder.resolve().parent / "opt.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return options if isinstance(options, dict) else {}


def load_network(network: nn.Module, path: Path) -> None:
    """Load a network's file; keys and shapes must be those of the network.

    Raises:
        UserError: unreadable, or the weights of another architecture; nothing is loaded then.
    """
    state = {key: value for key, value in read(path).items() if key not in SIZE_KEYS}
    own = network.state_dict()
    for key in own.keys() | state.keys():
        if key in own and key in state and isinstance(state[key], Tensor):
            if own[key].shape == state[key].shape:
                continue
            detail = f"'{key}' is {list(state[key].shape)}, not {list(own[key].shape)}"
        else:
            detail = f"'{key}' is {'missing' if key in own else 'not expected'}"
        raise UserError(f"{path}: weights of another architecture ({detail})")
    network.load_state_dict(state)


def load_weights(folder: Path, model: Monodepth, names: tuple[str, ...] = ()) -> None:
    """Load the named networks of a model, by default all of them.

    Raises:
        UserError: as `load_network`.
    """
    for name, network in model.named_children():
        if not names or name in names:
            load_network(network, folder / f"{name}.pth")


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> bool:
    """Take over an optimizer's moments, keeping its learning rate; False if they do not fit.

    Raises:
        UserError: unreadable.
    """
    saved = read(path)
    current = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        counts = [len(group["params"]) for group in saved["param_groups"]]
        fits = counts == [len(group["params"]) for group in current["param_groups"]] and all(
            state["exp_avg"].shape == state["exp_avg_sq"].shape == parameters[index].shape
            and "step" in state
            for index, state in saved["state"].items()
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return False
    if fits:
        optimizer.load_state_dict(current | {"state": saved["state"]})
    return fits


def load_depth_model(folder: Path) -> DepthModel:
    """Encoder and depth decoder of a folder, for any ResNet and any set of scales.

    Raises:
        UserError: as `load_network`, or the input size is missing.
    """
    path = folder / "encoder.pth"
    state = read(path)
    size = input_size(path, state)
    num_layers = resnet_layers(path, state)
    scales = decoder_scales(folder / "depth.pth")
    model = Monodepth(num_layers, scales=scales, frame_ids=(0,))
    load_weights(folder, model)
    return DepthModel(model, num_layers, *size)


def load_pose_model(folder: Path) -> tuple[Monodepth, int, int]:
    """Model whose pose network is loaded, with height and width of its input.

    Raises:
        UserError: as `load_depth_model`, or the pose network takes more than a pair of frames.
    """
    encoder_path, pose_path = folder / "encoder.pth", folder / "pose.pth"
    encoder, pose = read(encoder_path), read(pose_path)
    height, width = input_size(encoder_path, encoder)
    if "pose_conv.weight" in pose:
        kind, images = "posecnn", (_width(pose, "net.0.weight") or 0) // 3
    elif (_width(pose, "net.1.weight") or 0) > SQUEEZED:
        kind, images = "shared", _width(pose, "net.1.weight") // SQUEEZED
    else:
        kind = "separate_resnet"
        encoder_path = folder / "pose_encoder.pth"
        encoder = read(encoder_path)
        images = (_width(encoder, "encoder.conv1.weight") or 0) // 3
    if images != 2:
        raise UserError(f"{pose_path}: the network takes {images} frames at once, not a pair")
    num_layers = resnet_layers(encoder_path, encoder)
    model = Monodepth(num_layers, frame_ids=(0, 1), pose_model_type=kind)
    load_weights(folder, model, ("encoder" if kind == "shared" else "pose_encoder", "pose"))
    return model, height, width


def input_size(path: Path, encoder: dict[str, Any]) -> tuple[int, int]:
    """Height and width that an encoder's file was trained for.

    Raises:
        UserError: the file does not hold them.
    """
    size = encoder.get("height"), encoder.get("width")
    if not all(isinstance(value, int) and value >= 64 and value % 32 == 0 for value in size):
        raise UserError(f"{path}: does not hold the height and width of the input")
    return size


def resnet_layers(path: Path, state: dict[str, Any]) -> int:
    """Depth of the ResNet whose state dict this is: 18, 34, 50, 101 or 152.

    Raises:
        UserError: none of them.
    """
    counts = tuple(
        sum(key.startswith(f"encoder.layer{n}.") and key.endswith(".conv1.weight") for key in state)
        for n in (1, 2, 3, 4)
    )
    kernel = state.get("encoder.layer1.0.conv1.weight")
    kernel = kernel.shape[-1] if isinstance(kernel, Tensor) and kernel.dim() == 4 else 0
    layers = BLOCKS.get(counts, {}).get(kernel)
    if layers is None:
        raise UserError(f"{path}: holds no ResNet encoder of 18, 34, 50, 101 or 152 layers")
    return layers


def decoder_scales(path: Path) -> tuple[int, ...]:
    """Scales of a depth decoder's heads, by their widths.

    Raises:
        UserError: unreadable, or no decoder.
    """
    state = read(path)
    widths = [_width(state, f"decoder.{i}.conv.weight") for i in range(10, 14)]
    scales = tuple(CHANNELS.index(width) for width in widths if width in CHANNELS)
    if not scales:
        raise UserError(f"{path}: weights of another architecture (no disparity heads)")
    return scales


def _width(state: dict[str, Any], key: str) -> int | None:
    """Input channels of a convolution."""
    weight = state.get(key)
    return weight.shape[1] if isinstance(weight, Tensor) and weight.dim() == 4 else None
