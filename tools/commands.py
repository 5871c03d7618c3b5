"""Tools of several commands: `tool.py <command> ...`, each a function whose arguments are flags."""

import argparse
import re
from collections.abc import Callable

from utils import OneLineParser, UserError


class Commands:
    """The commands of a tool; `run` calls the one that the command line names."""

    def __init__(self, description: str, metavar: str):
        self._parser = OneLineParser(description=description)
        self._commands = self._parser.add_subparsers(required=True, metavar=metavar)

    def add(
        self, function: Callable[..., None], summary: str, details: str, name: str | None = None
    ) -> argparse.ArgumentParser:
        """A command, by default of the function's name; add the function's arguments to it."""
        one = self._commands.add_parser(
            name or function.__name__, help=summary, description=details
        )
        one.set_defaults(run=function)
        return one

    def run(self) -> None:
        arguments = vars(self._parser.parse_args())
        arguments.pop("run")(**arguments)


def add_workers(command: argparse.ArgumentParser) -> None:
    """The flag --num_workers."""
    command.add_argument(
        "--num_workers", type=workers, default=-1, help="threads; -1: one per core, 12 at most"
    )


def add_camera(command: argparse.ArgumentParser) -> None:
    """The flags of `Camera`."""
    for name, what in (
        ("fx", "focal length in pixels of the images"),
        ("fy", "the same downwards (default: --fx)"),
        ("cx", "principal point (default: the middle)"),
        ("cy", "principal point (default: the middle)"),
        ("fov_deg", "horizontal angle of view, in place of --fx"),
    ):
        command.add_argument(f"--{name}", type=float, help=what)


def workers(text: str) -> int:
    if int(text) < -1:
        raise ValueError
    return int(text)


def size(text: str) -> tuple[int, int]:
    """(width, height) of `640x192`.

    Raises:
        UserError: anything else.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (2 <= min(width, height) and max(width, height) <= 65_500):
        raise UserError(f"--size '{text}': write width x height in pixels, as 640x192")
    return width, height
