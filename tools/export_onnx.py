"""Weights to ONNX: depth.onnx, and pose.onnx where the weights have a pose network.

    python tools/export_onnx.py --load_weights_folder weights_19
    python tools/export_onnx.py --model_name mono_640x192 --networks depth --out exported

depth.onnx takes `image` [batch 3 H W] in [0, 1] to `disp`, the sigmoid disparity [batch 1 H W];
pose.onnx takes images `first` and `second`, in temporal order, to `T` [batch 4 4], which takes
points of the first one's camera into the second one's. Each is one file for batches of any size at
the height and width of the weights, and says these, the range of depths and the scale, if there is
one, in its metadata. Nothing is written that onnxruntime does not compute as torch does.
"""

import contextlib
import copy
import logging
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import load_depth_model, load_pose_model  # noqa: E402
from inference import find_weights, trained_depth_range  # noqa: E402
from metric_scale import read_scale  # noqa: E402
from networks import Monodepth  # noqa: E402
from onnx_network import Description, first_line, need, open_session, run_session  # noqa: E402
from utils import (  # noqa: E402
    OneLineParser,
    UserError,
    atomic_write,
    demand_writable,
    readable_size,
    run_script,
)

OPSET = 18  # what torch's exporter writes first; others are converted from it
OPSETS = range(18, 24)
TOLERANCE = 1e-4  # of the largest absolute difference between onnxruntime and torch
BATCHES = (1, 3)
CHATTY = ("torch.onnx._internal.exporter._schemas", "torch.fx.experimental.symbolic_shapes")
MOST_IMAGES = 2**16  # in a batch: torch 2.6 gives up on a size that it knows no bound of


class Depth(nn.Module):
    """`Monodepth.disparity` as a module."""

    def __init__(self, model: Monodepth):
        super().__init__()
        self.model = model

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        return self.model.disparity(image)


class Pose(nn.Module):
    """`Monodepth.relative_pose` as a module."""

    def __init__(self, model: Monodepth):
        super().__init__()
        self.model = model

    def forward(
        self, first: Float[Tensor, "B 3 H W"], second: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 4 4"]:
        return self.model.relative_pose(first, second)


class Exported(NamedTuple):
    """A network to export, and what its inputs and its output are called."""

    network: nn.Module
    inputs: tuple[str, ...]
    output: str

    def images(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """The same random images in [0, 1] at every call, one batch for each input."""
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.rand(batch, 3, height, width, generator=generator) for _ in self.inputs)


# Weights ------------------------------------------------------------------------------------------


def load(weights: Path, name: str) -> tuple[Exported, int, int]:
    """The network `depth` or `pose` of a folder of weights, and height and width of its input.

    Raises:
        UserError: as `load_depth_model` and `load_pose_model`.
    """
    if name == "depth":
        model, _, height, width = load_depth_model(weights)
        return Exported(Depth(model).eval(), ("image",), "disp"), height, width
    try:
        model, height, width = load_pose_model(weights)
    except UserError as error:
        raise UserError(f"{error}; --networks depth goes without") from None
    return Exported(Pose(model).eval(), ("first", "second"), "T"), height, width


def describe(weights: Path, height: int, width: int) -> Description:
    """What is to stand in the metadata.

    Raises:
        UserError: a damaged scale.json, or a range of depths or a size that cannot be.
    """
    depths, scale = trained_depth_range(weights), read_scale(weights)
    try:
        return Description(height, width, *depths, scale)
    except ValueError as error:
        raise UserError(f"{weights}: cannot be exported: {error}") from None


# ONNX ---------------------------------------------------------------------------------------------


def to_onnx(exported: Exported, description: Description, opset: int):
    """The onnx.ModelProto of a network, with its description as metadata.

    Raises:
        UserError: the exporter fails, or cannot write this opset.
    """
    images = exported.images(2, description.height, description.width)
    batch = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
    try:
        with quiet():
            program = torch.onnx.export(
                without_batch_norms(exported.network),
                images,
                input_names=exported.inputs,
                output_names=[exported.output],
                dynamic_shapes=dict.fromkeys(exported.inputs, {0: batch}),
                opset_version=opset,
                dynamo=True,  # the only exporter that is here to stay
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = f"torch {torch.__version__} cannot export '{exported.output}'"
        raise UserError(
            f"{reason} ({first_line(error)}): try other versions of torch, onnx and onnxscript"
        ) from error
    model = program.model_proto
    written = [each.version for each in model.opset_import if not each.domain]
    if written != [opset]:
        raise UserError(f"--opset {opset}: this torch can only write {written[0]}")
    forget_origin(model)
    name_batches(model)
    need("onnx").helper.set_model_props(model, description.strings())
    return model


def without_batch_norms(network: nn.Module) -> nn.Module:
    """A copy whose convolutions do the work of the batch norms that follow them.

    The exporter of torch 2.6 cannot write batch norms by today's onnxscript.
    """
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for (before, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(conv, norm))
                setattr(module, name, nn.Identity())
    return network


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """In the block the exporter keeps to itself that the batches of two inputs are one size, what
    torchvision's operators lack, and which sizes it took for granted: the comparison would tell."""
    chatty = [logging.getLogger(name) for name in CHATTY]
    levels = [each.level for each in chatty]
    try:
        for each in chatty:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            message = "# The axis name: batch will not be used"
            warnings.filterwarnings("ignore", message, UserWarning)
            yield
    finally:
        for each, level in zip(chatty, levels, strict=True):
            each.setLevel(level)


def forget_origin(model: Any) -> None:
    """Take the exporter's notes, with paths of this machine's files, out of an onnx.ModelProto."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output,
                 *graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def name_batches(model: Any) -> None:
    """Call the first axis of inputs and output `batch`, which not every version of torch does."""
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.ClearField("value_info")  # shapes in between, by the exporter's own names


def largest_difference(
    exported: Exported, content: bytes, path: Path, height: int, width: int
) -> float:
    """Between the outputs of onnxruntime and torch on random images, in batches of `BATCHES`.

    Raises:
        UserError: onnxruntime cannot run what is to be written to `path`.
    """
    session = open_session(content, path)
    gaps = []
    for batch in BATCHES:
        images = exported.images(batch, height, width)
        named = dict(zip(exported.inputs, images, strict=True))
        ours = run_session(session, exported.output, named, path)
        with torch.no_grad():
            gaps.append(difference(ours, exported.network(*images)))
    return max(gaps)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; inf where one of them is NaN."""
    return float((ours - theirs).abs().nan_to_num(nan=torch.inf).max())


def write(path: Path, exported: Exported, description: Description, opset: int) -> None:
    """Export a network, compare it with torch, and only then write its file.

    Raises:
        UserError: the opset cannot be had, the graph is not valid, or computes something else.
    """
    demand_writable(path)
    onnx = need("onnx")
    model = to_onnx(exported, description, opset)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"{path}: not written, it is no valid ONNX ({first_line(error)})") from None
    content = model.SerializeToString()
    size = description.height, description.width
    gap = largest_difference(exported, content, path, *size)
    if gap > TOLERANCE:
        raise UserError(
            f"{path}: not written, its {exported.output} differs from torch's by {gap:.1e}, more "
            f"than {TOLERANCE:g}; try another --opset or other versions of the packages"
        )
    with atomic_write(path) as file:
        file.write(content)
    print(
        f"{path}: {readable_size(len(content))}, opset {opset}, {exported.output} differs from "
        f"torch's by at most {gap:.1e} on random images"
    )


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--load_weights_folder", type=Path)
    way.add_argument("--model_name", help="a released model, such as mono_640x192")
    parser.add_argument("--models_url", help="address of a mirror of the released models")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the weights')")
    parser.add_argument(
        "--networks", nargs="+", choices=("depth", "pose"),
        help="(default: depth, and pose where its weights are there)",
    )  # fmt: skip
    parser.add_argument(
        "--opset", type=int, default=OPSET, choices=OPSETS, metavar=f"{OPSETS[0]}..{OPSETS[-1]}",
        help=f"version of ONNX's operators (default: {OPSET}, which the most programs read)",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.models_url is not None and arguments.model_name is None:
        parser.error("--models_url needs --model_name: nothing is downloaded")
    for package in ("onnx", "onnxruntime", "onnxscript"):
        need(package)

    weights = find_weights(
        arguments.load_weights_folder, arguments.model_name, arguments.models_url
    )
    has_pose = (weights / "pose.pth").is_file()
    names = arguments.networks or (["depth", "pose"] if has_pose else ["depth"])
    loaded = {name: load(weights, name) for name in dict.fromkeys(names)}
    for name, (exported, *size) in loaded.items():
        path = (arguments.out or weights) / f"{name}.onnx"
        write(path, exported, describe(weights, *size), arguments.opset)


if __name__ == "__main__":
    run_script(main)
