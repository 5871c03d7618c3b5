"""The paper's ablations (Table 2) on made-up streets with exact depth, without ImageNet.

    python benchmarks/ablations.py --work /tmp/ablations

The street has what each part of the method is for: cars that drive before the camera at its speed
and a camera that stands at times (auto-masking), poles, trees and parked cars that hide what is
behind them (minimum reprojection), plain surfaces (full-resolution multi-scale). Every variant
trains with several seeds and is scored on drives it has not seen, also on those parts alone. So
that few steps tell something, all begin with the same weights, those of the demo, which were
trained from scratch on mono + stereo in other streets, where nothing moves; --from_scratch begins
without. Runs that are done are kept, so that the command may be given again. It puts the table into
docs/ablations.md and draws its plots.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from checkpoint import load_depth_model  # noqa: E402
from datasets import Frame, KITTIDepth, read_split  # noqa: E402
from datasets.kitti import STEREO_SCALE  # noqa: E402
from inference import predict_disparities  # noqa: E402
from metrics import resized_depth  # noqa: E402
from tools.make_sample import make_street  # noqa: E402
from tools.prepared import claim  # noqa: E402
from tools.render import SKY, look, pixel_rays  # noqa: E402
from tools.sample_files import drive_name, nominal_K  # noqa: E402
from tools.scenery import Setting, street  # noqa: E402
from utils import (  # noqa: E402
    OneLineParser,
    UserError,
    atomic_write,
    demand_writable,
    pick_device,
    run_script,
)

V1, MEAN, UNMASKED = "--v1_multiscale", "--avg_reprojection", "--disable_automasking"
VARIANTS = {
    "baseline": (V1, MEAN, UNMASKED),
    "baseline + minimum reprojection": (V1, UNMASKED),
    "baseline + auto-masking": (V1, MEAN),
    "baseline + full resolution": (MEAN, UNMASKED),
    "all without minimum reprojection": (MEAN,),
    "all without auto-masking": (UNMASKED,),
    "all without full resolution": (V1,),
    "all (mono)": (),
    "all, stereo": ("--frame_ids", "0", "--use_stereo"),
    "all, mono + stereo": ("--use_stereo",),
}
SETTING = Setting(rotation=0.4, moving_cars=5, standing=0.25, textureless=0.35)
FRAMES, TEST_DRIVES = (60, 60, 60, 60, 60, 50, 50), 2
IMAGE_SIZE = (416, 128)
WORLD_SEED = 7
START = "common start"
START_FRAMES, START_SETTING = (16,) * 10 + (8,), Setting(rotation=0.4)  # as the demo's (Makefile)
NEAREST = 0.5  # of the networks' depth range, as in experiments/demo.args
FARTHEST_M = 80.0
SAME_PLACE = 0.03  # depths that differ by a smaller share are of one place
PARTS = ("everywhere", "moving cars", "hidden once", "plain")
BEGIN, END = "<!-- table: benchmarks/ablations.py -->", "<!-- end of table -->"


class Size(NamedTuple):
    """How much each run trains; `jobs` run at a time."""

    steps: int
    batch_size: int
    height: int
    width: int
    jobs: int


class Truth(NamedTuple):
    """True depth [H W] of a test image in metres, and where each part of it is [H W]."""

    depth_m: np.ndarray
    parts: dict[str, np.ndarray]


def known_truth(data: Path, frames: list[Frame]) -> list[Truth]:
    """Depth as the files have it; what is seen where by casting the same world again."""
    depths = KITTIDepth(data, frames, 0, 0, frame_ids=())
    where = {frame: i for i, frame in enumerate(frames)}
    width, height = IMAGE_SIZE
    K = nominal_K(width, height)
    rays = pixel_rays(K, height, width)
    films, truths = {}, []
    for i, frame in enumerate(tqdm(frames, desc="truth", unit="frame", dynamic_ncols=True)):
        number = int(frame.folder[-9:-5])
        assert frame.folder == drive_name(number)
        if number not in films:
            rng = np.random.default_rng([WORLD_SEED, number])
            films[number] = street(rng, FRAMES[number - 1], SETTING, torch.device("cpu"))
        film = films[number]
        pose = film.poses[frame.index]
        world = film.at(frame.index)
        _, thing = look(world, pose, rays)
        depth_m = depths.ground_truth(i)
        counts = (depth_m > 0) & (depth_m < FARTHEST_M)
        moving = np.isin(thing, film.movers)
        hidden = np.zeros_like(counts)
        for other in (frame.index - 1, frame.index + 1):
            j = where.get(frame._replace(index=other))
            if j is not None:
                T = np.linalg.inv(film.poses[other]) @ pose
                hidden ^= is_hidden(depth_m, depths.ground_truth(j), T, K, rays)
        plain = (world.contrast.numpy() == 0)[thing] & (thing != SKY)
        parts = (np.ones_like(counts), moving, hidden & ~moving, plain)
        truths.append(Truth(depth_m, {n: p & counts for n, p in zip(PARTS, parts, strict=True)}))
    return truths


def is_hidden(
    depth_m: np.ndarray, other_m: np.ndarray, T: np.ndarray, K: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    """Where [H W] a camera with depth [H W] sees what another, to which T [4 4] leads, does not:
    something is before it there, or it is out of the picture."""
    height, width = depth_m.shape
    points = (rays * depth_m[..., None]) @ T[:3, :3].T + T[:3, 3]
    z = np.maximum(points[..., 2], 1e-3)
    u, v = np.moveaxis((points / z[..., None]) @ K.T, 2, 0)[:2]
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1) & (points[..., 2] > 0)
    row, column = (np.where(inside, np.round(a), 0).astype(int) for a in (v, u))
    there = other_m[row, column]
    before = (there > 0) & (there < (1 - SAME_PLACE) * z)
    return (depth_m > 0) & (~inside | before)


def scores(disps: list[np.ndarray], truths: list[Truth]) -> dict[str, float]:
    """Errors of median-scaled predictions, the median ratio, and the error in the rig's metres.

    The error of a part is the mean over all its pixels of all images.
    """
    errors: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    ratios, within, metric = [], [], []
    for disp, truth in zip(disps, truths, strict=True):
        everywhere = truth.parts["everywhere"]
        pred = resized_depth(disp, truth.depth_m.shape)
        ratio = np.median(truth.depth_m[everywhere]) / np.median(pred[everywhere])
        gt = np.where(everywhere, truth.depth_m, 1)
        scaled = np.clip(ratio * pred, 1e-3, FARTHEST_M)
        error = np.abs(scaled - gt) / gt
        for part, seen in truth.parts.items():
            errors[part].append(error[seen])
        off = np.maximum(scaled / gt, gt / scaled)[everywhere]
        ratios.append(ratio)
        within.append((off < 1.25).mean())
        in_metres = np.clip(STEREO_SCALE * pred, 1e-3, FARTHEST_M)
        metric.append((np.abs(in_metres - gt) / gt)[everywhere].mean())
    result = {part: float(np.concatenate(parts).mean()) for part, parts in errors.items()}
    result["a1"] = float(np.mean(within))
    result["ratio"] = float(np.median(ratios))
    return result | {"metric": float(np.mean(metric))}


def train(data: Path, folder: Path, jobs: int, flags: list) -> None:
    """One run in a process of its own, of one thread each where several run at a time."""
    command = [
        sys.executable, ROOT / "train.py", *flags, "--data_path", data, "--split", "sample",
        "--log_dir", folder.parent, "--model_name", folder.name,
    ]  # fmt: skip
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})
    with open(folder.with_suffix(".log"), "w") as log:
        done = subprocess.run(list(map(str, command)), stdout=log, stderr=log, env=environment)
    if done.returncode:
        raise UserError(f"{log.name}: this training failed, see there")


def run_folder(work: Path, name: str, seed: int) -> Path:
    """Where a run's weights go."""
    words = name.replace(" + ", "+").replace(",", "").replace("(", "").replace(")", "").split()
    return work / "runs" / f"{'_'.join(words)}-{seed}"


def saved(folder: Path) -> Path | None:
    """The weights of a run, if it is done."""
    return max(
        (folder / "models").glob("weights_[0-9]*"), key=lambda p: p.stat().st_mtime, default=None
    )


def common_start(work: Path) -> Path:
    """Weights that every run begins with: those of the demo."""
    folder, data = run_folder(work, START, 0), work / "start"
    if saved(folder) is None:
        if not (data / "splits/sample/test_files.txt").exists():
            make_street(data, START_FRAMES, 1, IMAGE_SIZE, setting=START_SETTING)
        recipe = [f"@{ROOT / 'experiments/demo.args'}", "--save_frequency", 1000]
        train(data, folder, 1, recipe)
    return saved(folder)


def score(work: Path, weights: Path, truths: list[Truth]) -> dict[str, float]:
    """Scores of weights on the held-out drives."""
    loaded = load_depth_model(weights)
    loaded.model.to(pick_device()).eval()
    frames = read_split(work / "data/splits/sample/test_files.txt")
    data = KITTIDepth(work / "data", frames, loaded.height, loaded.width)
    return scores(list(predict_disparities(loaded.model, data, 16, 0, NEAREST, 100.0)), truths)


def run(
    work: Path, name: str, seed: int, size: Size, start: Path | None, truths: list[Truth]
) -> dict[str, float]:
    """Train, unless that is done, and score."""
    folder = run_folder(work, name, seed)
    if saved(folder) is None:
        frames = read_split(work / "data/splits/sample/train_files.txt")
        epochs = -(-size.steps // max(len(frames) // size.batch_size, 1))
        flags = [
            "--intrinsics", "calib", "--weights_init", "scratch", "--seed", seed,
            "--num_epochs", epochs, "--scheduler_step_size", epochs, "--save_frequency", epochs,
            "--batch_size", size.batch_size, "--height", size.height, "--width", size.width,
            "--min_depth", NEAREST, "--num_workers", 1, *VARIANTS[name],
        ]  # fmt: skip
        flags += ["--load_weights_folder", start] if start else ["--learning_rate", 2e-4]
        train(work / "data", folder, size.jobs, flags)
    return score(work, saved(folder), truths)


def spread(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def table(results: dict[str, list[dict]]) -> str:
    """Means and spreads over the seeds, in Markdown."""
    columns = (*PARTS, "a1", "ratio", "metric")
    heads = (*(f"abs_rel {part}" for part in PARTS), "a1", "median ratio", "abs_rel in metres")
    lines = ["| variant | " + " | ".join(heads) + " |", "|---|" + "---|" * len(columns)]
    for name, rows in results.items():
        cells = []
        for column in columns:
            mono = column in ("ratio", "metric") and "stereo" not in name
            cells.append("" if mono and name != START else spread([row[column] for row in rows]))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(path: Path, results: dict[str, list[dict]]) -> None:
    """A panel for each part: a dot for each seed, a line at their mean."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    names = list(results)[::-1]
    for axes, part in zip(figure.subplots(1, len(PARTS), sharey=True), PARTS, strict=True):
        for y, name in enumerate(names):
            values = [row[part] for row in results[name]]
            kinds = {"common": "0.4", "baseline": "tab:red", "all,": "tab:green"}
            colour = kinds.get(name.split()[0], "tab:blue")
            axes.plot(values, [y] * len(values), "o", color=colour, alpha=0.6, markersize=5)
            axes.plot([np.mean(values)] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2)
        axes.set(title=f"abs_rel {part}", yticks=range(len(names)), yticklabels=names)
        axes.set_xlim(left=0)
        axes.grid(axis="x", color="0.9")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def put_between(page: Path, begin: str, end: str, body: str) -> None:
    """Replace what a page has between two marks; a page that is missing is made.

    Raises:
        UserError: the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else f"{begin}\n{end}\n"
    before, mark, rest = text.partition(begin)
    _, other_mark, after = rest.partition(end)
    if not (mark and other_mark):
        raise UserError(f"{page}: has no lines '{begin}' and '{end}' to put the table between")
    with atomic_write(page, "w") as file:
        file.write(f"{before}{begin}\n{body}\n{end}{after}")


def write(page: Path, results: dict[str, list[dict]], size: Size) -> None:
    """Put the table between its marks in a page, which is made if missing, and the plot beside."""
    picture = page.with_suffix(".png")
    seeds = max(len(rows) for rows in results.values())
    begin = "from the common start" if START in results else "from scratch"
    how = (
        f"{size.steps} steps of batch {size.batch_size} at {size.width}x{size.height} {begin}, "
        f"{seeds} seeds, on {pick_device()}"
    )
    draw(picture, results)
    body = f"{how}:\n\n{table(results)}\n\n![plots of the table]({picture.name})"
    put_between(page, BEGIN, END, body)


def main() -> None:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for world and runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "ablations.md")
    parser.add_argument("--steps", type=int, default=130, help="of each run, rounded up to epochs")
    parser.add_argument("--from_scratch", action="store_true", help="no common start")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    size = Size(**{name: getattr(arguments, name) for name in Size._fields})
    if min(size) < 1:
        raise UserError("--steps, --batch_size, --height, --width and --jobs must be 1 or more")
    demand_writable(arguments.out)
    how = size._replace(jobs=1)._asdict() | {"from_scratch": arguments.from_scratch}
    claim(arguments.work, how)  # runs of another kind are not taken for these
    data = arguments.work / "data"
    if not (data / "splits/sample/test_files.txt").exists():
        make_street(data, FRAMES, TEST_DRIVES, IMAGE_SIZE, seed=WORLD_SEED, setting=SETTING)
    truths = known_truth(data, read_split(data / "splits/sample/test_files.txt"))
    (arguments.work / "runs").mkdir(exist_ok=True)
    start = None if arguments.from_scratch else common_start(arguments.work)
    wanted = [(name, seed) for seed in arguments.seeds for name in arguments.variants]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {
            (name, seed): pool.submit(run, arguments.work, name, seed, size, start, truths)
            for name, seed in wanted
        }
        try:
            for name, seed in tqdm(wanted, unit="run", dynamic_ncols=True):
                futures[name, seed].result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    results = {START: [score(arguments.work, start, truths)]} if start else {}
    results |= {
        name: [futures[name, seed].result() for seed in arguments.seeds]
        for name in arguments.variants
    }
    write(arguments.out, results, size)
    print(f"{table(results)}\n\nin {arguments.out}")


if __name__ == "__main__":
    run_script(main)
