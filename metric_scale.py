"""From a network's units to metres: a factor that lies beside its weights, as `scale.json`."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from utils import UserError, atomic_write

FILE = "scale.json"
NO_SCALE = (ValueError, TypeError, KeyError, OverflowError, RecursionError)  # of `scale_of`


class Scale(NamedTuple):
    """What predicted depths are multiplied by to be metres.

    Attributes:
        factor: metres per unit of the network.
        spread: relative standard deviation of what it was found from, NaN where that is one value.
        source: how it was found, in words.
    """

    factor: float
    spread: float
    source: str

    @property
    def origin(self) -> str:
        """How it was found, and how far the values that it was found from differ."""
        return self.source + ("" if math.isnan(self.spread) else f", spread {self.spread:.1%}")

    def __str__(self) -> str:
        return f"x {self.factor:.4g} ({self.origin})"


def plain(scale: Scale) -> dict[str, float | str | None]:
    """A scale as JSON has it."""
    return scale._asdict() | {"spread": None if math.isnan(scale.spread) else scale.spread}


def scale_of(values: dict[str, Any]) -> Scale:
    """A scale from what JSON has.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is none.
    """
    spread = math.nan if values["spread"] is None else float(values["spread"])
    scale = Scale(float(values["factor"]), spread, values["source"])
    if not (0 < scale.factor < math.inf and isinstance(scale.source, str)):
        raise ValueError("no scale")
    return scale


def demand_scale(scale: Scale | None, weights: Path) -> Scale:
    """The scale of weights from which metres are wanted.

    Raises:
        UserError: they have none.
    """
    if scale is None:
        raise UserError(
            f"{weights}: --metric needs its {FILE}; make one with tools/calibrate_scale.py"
        )
    return scale


def write_scale(folder: Path, scale: Scale) -> Path:
    """Write the scale beside the weights of a folder, in place of an older one."""
    with atomic_write(folder / FILE, "w") as file:
        json.dump(plain(scale), file, indent=2, allow_nan=False)
    return folder / FILE


def read_scale(folder: Path) -> Scale | None:
    """The scale beside the weights of a folder; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / FILE
    try:
        return scale_of(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, *NO_SCALE):
        raise UserError(
            f"{path}: holds no scale; make it anew with tools/calibrate_scale.py"
        ) from None
