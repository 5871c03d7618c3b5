"""What makes a training fast on its device: precision, kernels, memory layout, compilation."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distributed import Team
from utils import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Speed:
    """Choices for one training, which do nothing where they are off.

    autocast: context in which the networks run at the asked precision; geometry and loss do not.
    scaler:   of the loss, so that fp16 gradients do not vanish; idle otherwise.

    Networks lie in memory with their channels last. On CUDA, convolutions may use TF32 (matrix
    products never: geometry needs their digits), and cuDNN picks its fastest algorithms.

    Args:
        precision: of the networks, a key of `PRECISIONS`.
        compiled: compile networks and loss with torch.compile.

    Raises:
        UserError: the device cannot do what is asked.
    """

    def __init__(self, device: torch.device, precision: str, compiled: bool):
        on_gpu = device.type == "cuda"
        if precision == "fp16" and not on_gpu:
            raise UserError("--precision fp16 needs a GPU: choose bf16 or fp32 here")
        if precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported(False):
            raise UserError("--precision bf16: this GPU does not have it, choose fp16 or fp32")
        if compiled:
            demand_compiler(device)
        self.device, self.precision, self.compiled = device, precision, compiled
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        if on_gpu:
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cuda.matmul.allow_tf32 = False

    def autocast(self) -> contextlib.AbstractContextManager:
        """A context for the networks' forward pass."""
        off = self.precision == "fp32"
        return torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=not off)

    def prepare(self, model: nn.Module, loss: nn.Module, team: Team) -> nn.Module:
        """Move a model to the device and make it and the loss fast, in place.

        What comes back is to be called in training: with several processes, it also averages their
        gradients.
        """
        model.to(self.device, memory_format=torch.channels_last)
        loss.to(self.device)
        if self.compiled:
            model.compile()
            loss.compile()
        if team.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def describe(self) -> str:
        """One line for people."""
        parts = [str(self.device)]
        if self.device.type == "cuda":
            parts = [f"{self.device} ({torch.cuda.get_device_name(self.device)})"]
        parts.append(f"networks in {self.precision}")
        if self.device.type == "cuda":
            parts += ["convolutions by TF32"] * (self.precision == "fp32")
            parts.append("cuDNN autotuned")
        else:
            parts.append(f"{torch.get_num_threads()} threads")
        compiled = "compiled" if self.compiled else "not compiled"
        return ", ".join([*parts, "channels last", "fused Adam", compiled])


def demand_compiler(device: torch.device) -> None:
    """Compile something small, so that a missing compiler shows at the start.

    Raises:
        UserError: torch.compile does not work here.
    """
    double: Any = torch.compile(lambda x: 2 * x)
    try:
        result: Tensor = double(torch.ones(4, device=device))
        assert result.sum() == 8
    except Exception as error:  # no compiler, no triton, no Python headers: no one error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--compile: torch.compile does not work here ({reason}): leave it out"
        ) from error
