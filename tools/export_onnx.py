"""Write a model's networks as ONNX files, and compare them with torch.

    python tools/export_onnx.py --load_weights_folder weights_19
    python predict.py --onnx weights_19/depth.onnx --image_path photo.jpg

depth.onnx takes `image` [batch 3 height width] in [0, 1], and gives `disp`, the sigmoid disparity
[batch 1 height width]. pose.onnx takes `first` and `second`, two such images in the order of time,
and gives `T` [batch 4 4], which takes points of the first's camera into the second's. Both
normalise their inputs themselves. Size, range of depth and scale are in the files, too.
"""

import io
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import load_depth_model, load_pose_model  # noqa: E402
from inference import find_weights, known_options  # noqa: E402
from metric_scale import plain, read_scale  # noqa: E402
from networks import Monodepth  # noqa: E402
from onnx_network import HOW_TO_GET  # noqa: E402
from utils import OneLineParser, UserError, atomic_write, demand_writable, run_script  # noqa: E402

OPSET = 18  # the first that the exporter writes by itself; every onnxruntime since 1.14 reads it
LARGEST_ERROR = 1e-4
BATCHES = (1, 3)


class Depth(nn.Module):
    """The depth network alone."""

    def __init__(self, model: Monodepth):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.disparity(image)


class Pose(nn.Module):
    """The pose network alone, on a pair of images."""

    def __init__(self, model: Monodepth):
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.model.relative_pose(first, second)


class Export(NamedTuple):
    """A network to export, and the names of what goes in and comes out."""

    network: nn.Module
    inputs: tuple[str, ...]
    output: str
    height: int
    width: int

    def random(self, batch: int) -> tuple[Tensor, ...]:
        """Inputs to try it with, the same at every call."""
        generator = torch.Generator().manual_seed(batch)
        size = (batch, 3, self.height, self.width)
        return tuple(torch.rand(size, generator=generator) for _ in self.inputs)


def load(weights: Path, name: str) -> Export:
    """A network of a folder.

    Raises:
        UserError: it cannot be loaded.
    """
    if name == "depth":
        loaded = load_depth_model(weights)
        network = Depth(loaded.model).eval()
        return Export(network, ("image",), "disp", loaded.height, loaded.width)
    model, height, width = load_pose_model(weights)
    return Export(Pose(model).eval(), ("first", "second"), "T", height, width)


def onnx_bytes(export: Export, opset: int, about: dict[str, str]) -> bytes:
    """The file of a network, its weights inside, for batches of any size."""
    import onnx

    dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in export.inputs}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own insides
        program = torch.onnx.export(
            export.network,
            export.random(2),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=list(export.inputs),
            output_names=[export.output],
            dynamic_shapes=dynamic,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def largest_error(content: bytes, export: Export) -> float:
    """Largest difference between onnxruntime's output and torch's, over batches of two sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    errors = []
    for batch in BATCHES:
        images = export.random(batch)
        feeds = {name: x.numpy() for name, x in zip(export.inputs, images, strict=True)}
        (got,) = session.run([export.output], feeds)
        with torch.no_grad():
            expected = export.network(*images).numpy()
        errors.append(float(np.abs(got - expected).max()))
    return max(errors)


def torch_export(export: Export, path: Path) -> None:
    """The same network for torch.export.load, without this project's code."""
    dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in export.inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(export.network, export.random(2), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--load_weights_folder", type=Path)
    source.add_argument("--model_name", help="a released model, such as mono_640x192")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=("depth", "pose"),
        help="default: depth, and pose where its weights are there",
    )
    parser.add_argument("--out", type=Path, help="folder to write to (default: the weights')")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"of ONNX (default: {OPSET})")
    parser.add_argument(
        "--torch_export", action="store_true", help="also write .pt2 files for torch.export.load"
    )
    arguments = parser.parse_args()
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        what = "onnx, onnxruntime or onnxscript is"
        raise UserError(HOW_TO_GET.replace("onnxruntime is", what)) from None
    if arguments.opset < OPSET:
        raise UserError(f"--opset {arguments.opset}: the exporter writes {OPSET} and newer")
    weights = find_weights(arguments.load_weights_folder, arguments.model_name, None)
    out = arguments.out or weights
    demand_writable(out / "depth.onnx")
    names = arguments.networks or ["depth", *["pose"] * (weights / "pose.pth").is_file()]
    known, scale = known_options(weights), read_scale(weights)
    for name in names:
        export = load(weights, name)
        about = {"height": str(export.height), "width": str(export.width)}
        about |= {"min_depth": str(known.get("min_depth", 0.1))}
        about |= {"max_depth": str(known.get("max_depth", 100.0))}
        about |= {} if scale is None else {"scale": json.dumps(plain(scale))}
        try:
            content = onnx_bytes(export, arguments.opset, about)
        except Exception as error:  # the exporter has no one error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{weights}: {name} cannot be written with --opset {arguments.opset} ({reason})"
            ) from error
        error = largest_error(content, export)
        path = out / f"{name}.onnx"
        if not error <= LARGEST_ERROR:
            raise UserError(
                f"{path}: not written, for it differs from torch by {error:.1g}, more than "
                f"{LARGEST_ERROR:g}; try another --opset, or another onnxruntime"
            )
        with atomic_write(path) as file:
            file.write(content)
        print(
            f"{path}: {export.width}x{export.height}, opset {arguments.opset}, any batch, differs "
            f"from torch by {error:.1g} at most (batches of {BATCHES[0]} and {BATCHES[1]})"
        )
        if arguments.torch_export:
            torch_export(export, path.with_suffix(".pt2"))
            print(f"{path.with_suffix('.pt2')}: the same for torch.export.load")


if __name__ == "__main__":
    run_script(main)
