"""A depth network as an ONNX file, run by onnxruntime: no weights of torch are needed."""

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metric_scale import Scale, scale_of
from utils import UserError

HOW_TO_GET = "onnxruntime is not installed: pip install -e '.[onnx]'"
LARGEST = 8192  # pixels of an input's side


class OnnxDepth:
    """The network of a `depth.onnx` that tools/export_onnx.py wrote.

    Attributes:
        height, width: of its input in pixels.
        min_depth, max_depth: of disparities 1 and 0.
        scale: to metres; None where it is not known.

    Raises:
        UserError: onnxruntime is not there, or the file is missing, damaged, or another's.
    """

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: {HOW_TO_GET}") from None
        if not path.is_file():
            raise UserError(f"{path}: no such file; make it with tools/export_onnx.py")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong with a file is said by the exception
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            about = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime has no one error for a bad file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: cannot be read as ONNX ({reason})") from None
        try:
            self._read(about)
        except (KeyError, ValueError, TypeError, RecursionError):
            raise UserError(
                f"{path}: is no depth network of tools/export_onnx.py; export it again"
            ) from None

    def __call__(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
        """Sigmoid disparities of images in [0, 1]."""
        (disp,) = self._session.run(["disp"], {"image": np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(disp)

    def _read(self, about: dict[str, str]) -> None:
        """Take over what the file says of itself.

        Raises:
            KeyError, ValueError, TypeError, RecursionError: it is not ours.
        """
        self.height, self.width = int(about["height"]), int(about["width"])
        sides = (self.height, self.width)
        if not all(64 <= side <= LARGEST and side % 32 == 0 for side in sides):
            raise ValueError("size")
        self.min_depth, self.max_depth = float(about["min_depth"]), float(about["max_depth"])
        if not 0 < self.min_depth < self.max_depth < float("inf"):
            raise ValueError("range of depth")
        (given,), (out,) = self._session.get_inputs(), self._session.get_outputs()
        if (given.name, given.shape[1:], out.name) != ("image", [3, *sides], "disp"):
            raise ValueError("input or output")
        self.scale: Scale | None = (
            scale_of(json.loads(about["scale"])) if "scale" in about else None
        )
