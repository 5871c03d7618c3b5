"""Whether a faster precision trains as well: validation error of both, several seeds.

    python benchmarks/bench_precision.py --data_path demo/street --work /tmp/precision
    python benchmarks/bench_precision.py --data_path demo/street --work /tmp/precision --compile

Trains the demo's recipe on a made-up street (`make demo` makes it) in fp32 and in bf16, with the
same seeds, and compares the validation's abs_rel at the end and all along.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.timing import machine, report  # noqa: E402
from utils import OneLineParser, UserError, pick_device, run_script  # noqa: E402

AGREE = 0.01  # abs_rel
EPOCH = re.compile(r"^epoch \d+/\d+: loss ([\d.]+), .*val abs_rel ([\d.]+)", re.MULTILINE)


def curves(a: argparse.Namespace, name: str, seed: int, flags: list[str]) -> np.ndarray:
    """Training loss and validation abs_rel after every epoch [epochs 2] of one run."""
    command = [
        sys.executable, ROOT / "train.py", f"@{ROOT / 'experiments/demo.args'}",
        "--data_path", a.data_path, "--split", a.split, "--log_dir", a.work,
        "--model_name", f"{name}-{seed}", "--seed", seed, "--num_epochs", a.epochs,
        "--scheduler_step_size", max(a.epochs - 3, 1), "--save_frequency", a.epochs, *flags,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"a training failed: {done.stderr.strip().splitlines()[-1]}")
    return np.array(EPOCH.findall(done.stdout), float)


def main() -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--split", default="sample")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--compile", action="store_true", help="the bf16 runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    a = parser.parse_args()
    if a.epochs < 1:
        raise UserError("--epochs must be 1 or more")
    ways = {"fp32": [], "bf16": ["--precision", "bf16", *["--compile"] * a.compile]}
    jobs = [(way, seed) for seed in a.seeds for way in ways]
    found = {
        job: curves(a, *job, ways[job[0]]) for job in tqdm(jobs, unit="run", dynamic_ncols=True)
    }
    device = pick_device()
    print(f"{machine(device)}\n{'seed':6}{'loss':>20}{'val abs_rel':>20}")
    for seed in a.seeds:
        ends = [found[way, seed][-1] for way in ways]
        cells = [", ".join(f"{end[i]:.4f}" for end in ends) for i in (0, 1)]
        print(f"{seed:<6}{cells[0]:>20}{cells[1]:>20}")
    last = {way: [found[way, seed][-1, 1] for seed in a.seeds] for way in ways}
    means = {way: float(np.mean(values)) for way, values in last.items()}
    loss = max(
        float(np.abs(found["fp32", seed] - found["bf16", seed])[:, 0].max()) for seed in a.seeds
    )
    off = abs(means["fp32"] - means["bf16"])
    print(
        f"mean abs_rel fp32 {means['fp32']:.4f}, {' '.join(['bf16', *ways['bf16'][2:]])} "
        f"{means['bf16']:.4f}: {off:.4f} apart, {'within' if off <= AGREE else 'NOT within'} "
        f"{AGREE}; losses {loss:.4f} apart at most"
    )
    curve = {f"{way}-{seed}": found[way, seed].tolist() for way, seed in jobs}
    report({"machine": machine(device), "abs_rel": last, "curves": curve}, a.json)


if __name__ == "__main__":
    run_script(main)
