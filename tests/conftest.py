import json
import os
from pathlib import Path

# The recorded figures come from a CPU without AVX-512; its kernels round differently (about 1e-5).
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from scripts import write_split  # noqa: E402

from tools.make_sample import make_street  # noqa: E402

hypothesis.settings.register_profile("slow machine", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("slow machine")

HERE = Path(__file__).parent
REAL_DATA = Path(os.environ.get("MONODEPTH_REAL_DATA", "nowhere"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real KITTI pieces; tests that need it are skipped where it is absent."""
    if not (REAL_DATA / "kitti_raw").is_dir():
        pytest.skip("no real KITTI frames here (set MONODEPTH_REAL_DATA)")
    return REAL_DATA


@pytest.fixture(scope="session")
def short_split(tmp_path_factory) -> Path:
    """Ten frames of the street's first drive to train on, three to validate."""
    return write_split(tmp_path_factory.mktemp("split"), "1-10", "7-9")


def golden(name: str) -> dict:
    """A file of figures that the published method computes (tests/golden/README.md)."""
    return json.loads((HERE / "golden" / f"{name}.json").read_text())


@pytest.fixture(autouse=True)
def repeatable():
    """The same random numbers and threads for every test, whatever commands ran before."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A small street in KITTI's layout: three drives of twelve frames, made once."""
    folder = tmp_path_factory.mktemp("sample")
    make_street(folder, frames=(12, 12, 12), test_drives=1)
    return folder
