"""A folder that a tool fills from something: an interrupted run goes on, another is refused."""

import json
from pathlib import Path
from typing import Any

from utils import UserError, atomic_write, demand_writable

NAME = "prepared.json"


def claim(folder: Path, content: dict[str, Any]) -> None:
    """Say in a folder what it is filled from, or find there that an earlier run said the same.

    Raises:
        UserError: the folder cannot be written, or holds something else.
    """
    about = folder / NAME
    demand_writable(about)
    if about.is_file():
        try:
            before = json.loads(about.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before == content:
            return
        other = before if isinstance(before, dict) else {}
        changed = [name for name in content if other.get(name) != content[name]]
        raise UserError(
            f"{folder}: was prepared from other data or otherwise ({', '.join(changed)} in its "
            f"{NAME}); choose another folder, or remove it"
        )
    begun = f".{NAME}."  # how atomic_write names the file before it is whole
    if folder.is_dir() and any(not path.name.startswith(begun) for path in folder.iterdir()):
        raise UserError(f"{folder}: holds files that this tool did not make; choose another folder")
    with atomic_write(about, "w") as file:
        json.dump(content, file, indent=2)
