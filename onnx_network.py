"""A depth network in an ONNX file of `tools/export_onnx.py`, run by onnxruntime."""

import dataclasses
import importlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metric_scale import NO_SCALE, Scale, plain, scale_of
from utils import UserError

SIZES = range(64, 8193, 32)  # of an input, in pixels
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
FATAL = 4  # onnxruntime's severity: what it logs below that also comes as an exception


def need(package: str) -> ModuleType:
    """A package that only ONNX files need.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = f"{package} cannot be imported ({error})".splitlines()[0]
        raise UserError(f'{reason}: pip install -e ".[onnx]"') from None


@dataclasses.dataclass(frozen=True)
class Description:
    """What an ONNX file says of its network beside the graph, as strings of its metadata.

    Attributes:
        height, width: of its input in pixels.
        min_depth, max_depth: the depths of disparities 1 and 0.
        scale: how its depths become metres; None where that is unknown.

    Raises:
        ValueError: a size that no network has, or an impossible range of depths or scale.
    """

    height: int
    width: int
    min_depth: float = 0.1
    max_depth: float = 100.0
    scale: Scale | None = None

    def __post_init__(self):
        if self.height not in SIZES or self.width not in SIZES:
            raise ValueError(f"no input is of {self.width} x {self.height} pixels")
        if not 0 < self.min_depth < self.max_depth < math.inf:
            raise ValueError(f"no depths are of {self.min_depth} to {self.max_depth}")
        if self.scale is not None and not 0 < self.scale.factor < math.inf:
            raise ValueError(f"no scale is {self.scale.factor}")

    def strings(self) -> dict[str, str]:
        """As metadata; a scale is JSON, and absent where there is none."""
        names = ("height", "width", "min_depth", "max_depth")
        strings = {name: repr(getattr(self, name)) for name in names}
        if self.scale is not None:
            strings["scale"] = json.dumps(plain(self.scale))
        return strings

    @classmethod
    def parse(cls, strings: dict[str, str]) -> "Description":
        """From metadata.

        Raises:
            ValueError: strings are missing, or do not hold what they should.
        """
        try:
            size = int(strings["height"]), int(strings["width"])
            depths = float(strings["min_depth"]), float(strings["max_depth"])
        except KeyError as error:
            raise ValueError(f"{error} is missing in its metadata") from None
        try:
            scale = scale_of(json.loads(strings["scale"])) if "scale" in strings else None
        except NO_SCALE:
            raise ValueError("its metadata holds no scale") from None
        return cls(*size, *depths, scale)


class OnnxDepth:
    """A depth network of an ONNX file, for `predictor.DepthPredictor` or by itself.

    Args:
        path: depth.onnx of `tools/export_onnx.py`.
        cuda: run on a GPU, which takes the package onnxruntime-gpu; else on as many threads of the
            CPU as torch.

    Attributes:
        height, width, min_depth, max_depth, scale: see `Description`.

    Raises:
        UserError: onnxruntime is not installed or knows no GPU; the file is missing, damaged, or
            holds something else.
    """

    def __init__(self, path: Path | str, cuda: bool = False):
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file; make it with tools/export_onnx.py")
        self._session = open_session(str(self.path), self.path, cuda)
        try:
            about = Description.parse(self._session.get_modelmeta().custom_metadata_map)
            size = [about.height, about.width]
            demand_images(self._session.get_inputs(), "image", [3, *size])
            demand_images(self._session.get_outputs(), "disp", [1, *size])
        except ValueError as error:  # also strings that are no text
            raise UserError(
                f"{self.path}: no depth network of tools/export_onnx.py ({error}); make it anew"
            ) from None
        self.height, self.width = about.height, about.width
        self.min_depth, self.max_depth = about.min_depth, about.max_depth
        self.scale = about.scale

    def __call__(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
        """Sigmoid disparity of images in [0, 1], on the device that they are on.

        Raises:
            ValueError: they are not of the network's size.
            UserError: the file's graph cannot be run.
        """
        if images.shape[2:] != (self.height, self.width):
            raise ValueError(
                f"images are [3 {self.height} {self.width}], not {list(images.shape[1:])}"
            )
        disp = run_session(self._session, "disp", {"image": images.detach().cpu()}, self.path)
        if disp.shape != (len(images), 1, self.height, self.width):
            raise UserError(f"{self.path}: gives {list(disp.shape)} for {len(images)} images")
        return disp.to(images.device)


def open_session(model: str | bytes, path: Path, cuda: bool = False) -> Any:
    """The onnxruntime.InferenceSession of a file's name or content, on as many threads as torch.

    Raises:
        UserError: onnxruntime is not installed or knows no GPU; `path`, its origin, is damaged.
    """
    onnxruntime = need("onnxruntime")
    if cuda and CUDA not in onnxruntime.get_available_providers():
        raise UserError("onnxruntime knows no GPU here: pip install onnxruntime-gpu, or use a CPU")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(model, options, [CUDA, CPU] if cuda else [CPU])
    except Exception as error:  # onnxruntime has no one error for a bad file
        raise UserError(f"{path}: cannot be read as ONNX ({first_line(error)})") from None


def run_session(session: Any, output: str, inputs: dict[str, Tensor], path: Path) -> Tensor:
    """One output of a session, for inputs on the CPU.

    Raises:
        UserError: the graph of `path` cannot be run on them.
    """
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    try:
        (result,) = session.run([output], arrays)
    except Exception as error:  # onnxruntime has no one error
        raise UserError(f"{path}: cannot be run ({first_line(error)})") from None
    return torch.from_numpy(result)


def demand_images(tensors: list, name: str, shape: list[int]) -> None:
    """Refuse a graph's inputs or outputs unless they are one float tensor [batch *shape].

    Raises:
        ValueError: they are something else.
    """
    found = [(each.name, each.type, each.shape[1:]) for each in tensors]
    if found != [(name, "tensor(float)", shape)]:
        raise ValueError(f"its '{name}' is not [batch {' '.join(map(str, shape))}]")
    if isinstance(tensors[0].shape[0], int):
        raise ValueError(f"its '{name}' is for batches of {tensors[0].shape[0]} only")


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
