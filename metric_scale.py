"""From a network's units to metres: a factor that lies beside its weights, as `scale.json`."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from utils import UserError, atomic_write

FILE = "scale.json"


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

    def __str__(self) -> str:
        spread = "" if math.isnan(self.spread) else f", spread {self.spread:.1%}"
        return f"x {self.factor:.4g} ({self.source}{spread})"


def write_scale(folder: Path, scale: Scale) -> Path:
    """Write the scale beside the weights of a folder, in place of an older one."""
    spread = None if math.isnan(scale.spread) else scale.spread
    with atomic_write(folder / FILE, "w") as file:
        json.dump(scale._asdict() | {"spread": spread}, file, indent=2, allow_nan=False)
    return folder / FILE


def read_scale(folder: Path) -> Scale | None:
    """The scale beside the weights of a folder; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        spread = values["spread"]
        scale = Scale(
            float(values["factor"]), math.nan if spread is None else float(spread), values["source"]
        )
        good = 0 < scale.factor < math.inf and isinstance(scale.source, str)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise UserError(f"{path}: holds no scale; make it anew with tools/calibrate_scale.py")
    return scale
