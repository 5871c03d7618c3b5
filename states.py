"""Training states on disk: all that a run needs to go on as if it had never stopped."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from checkpoint import read
from utils import UserError, atomic_write

NAME = "state_{:08d}.pth"
PATTERN = "state_*.pth"


class States:
    """The states of one run, `state_<step>.pth` in a folder.

    Args:
        keep: how many of them stay.
        identity: plain values that a resumed run must share, by what people call them.
    """

    def __init__(self, folder: Path, keep: int, identity: Mapping[str, Any]):
        self.folder, self.keep, self.identity = folder, keep, dict(identity)
        self.last: Path | None = None

    def save(self, step: int, parts: Mapping[str, Any], counts: Mapping[str, Any]) -> Path:
        """Write the state of all parts (they have `state_dict`) after a step, and some counts.

        The file appears whole or not at all; then the oldest go.
        """
        self.last = self.folder / NAME.format(step)
        content = {"identity": self.identity, "counts": dict(counts)}
        content["parts"] = {name: part.state_dict() for name, part in parts.items()}
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with atomic_write(self.last) as file:
            file.write(buffer.getbuffer())
        for old in self._found()[self.keep :]:
            old.unlink(missing_ok=True)
        return self.last

    def find(self, named: Path | None) -> dict[str, Any]:
        """The named state, or the newest that is whole; damaged ones are said on the way.

        Raises:
            UserError: there is none, or it is of another run.
        """
        state = None
        for path in self._found() if named is None else [named]:
            try:
                state = read_state(path)
            except UserError as error:
                if named is not None:
                    raise
                print(f"WARNING: {error}: taking the state before it")
            else:
                break
        if state is None:
            raise UserError(f"{self.folder}: holds no state to go on from; leave --resume out")
        self.last = path
        before = state["identity"]
        other = [
            f"{name} {before.get(name)}, not {now}"
            for name, now in self.identity.items()
            if before.get(name) != now
        ]
        if other:
            raise UserError(
                f"{path}: is of a run with {'; '.join(other)}: give that, or start anew"
            )
        return state

    def restore(
        self, state: Mapping[str, Any], parts: Mapping[str, Any], counts: Sequence[str]
    ) -> dict[str, Any]:
        """Give all parts their state back; returns the counts.

        Raises:
            UserError: they do not fit.
        """
        try:
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            return {name: state["counts"][name] for name in counts}
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self.last}: does not fit this run ({reason})") from None

    def _found(self) -> list[Path]:
        """The states, the one written last first."""
        paths = self.folder.glob(PATTERN)
        return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))[::-1]


def read_state(path: Path) -> dict[str, Any]:
    """A whole state.

    Raises:
        UserError: missing, damaged, or something else.
    """
    if not path.exists():
        raise UserError(f"{path}: no such state; --resume alone takes the newest")
    state = read(path)
    if not all(isinstance(state.get(name), dict) for name in ("identity", "parts", "counts")):
        raise UserError(f"{path}: is no training state")
    return state
