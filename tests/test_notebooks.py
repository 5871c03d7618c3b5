"""The notebooks run from top to bottom, and say nothing of the machine that they were made on."""

import json
import shlex
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_their_scripts_exist(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    scripts = set()
    for cell in book.cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
        for line in cell.source.splitlines():
            if line.startswith("python "):
                scripts.add(shlex.split(line)[1])
    assert {"train.py"} < scripts and all((ROOT / script).is_file() for script in scripts)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_notebooks_run_from_top_to_bottom(tmp_path, path):
    """In a copy of the project."""
    copy = tmp_path / "project"
    kept_out = shutil.ignore_patterns(".git", ".venv", "demo", "work", "models", "*_cache")
    shutil.copytree(ROOT, copy, ignore=kept_out)
    book = nbformat.read(copy / "notebooks" / path.name, as_version=4)
    client = NotebookClient(
        book, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(copy)}}
    )
    client.execute()
    last = [output for cell in book.cells for output in cell.get("outputs", ())][-1]
    assert last["output_type"] in ("execute_result", "display_data"), json.dumps(last)[:300]
