"""What the objective prefers where the truth is known, without any training.

    python benchmarks/objective.py

In made-up streets, with the true motion of the camera, every pixel takes the depth at which its
photometric error is least: by the mean over both neighbouring frames, or by their minimum. Where
one neighbour does not see the place, the mean compares it with something else. And with true depth
too, auto-masking leaves out the pixels that look more alike unwarped. Writes docs/ablations.md.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.ablations import is_hidden, put_between, spread  # noqa: E402
from layers import backproject, project, warp  # noqa: E402
from losses import Target, photometric_error  # noqa: E402
from tools.render import pixel_rays, render  # noqa: E402
from tools.sample_files import nominal_K  # noqa: E402
from tools.scenery import Film, Setting, street  # noqa: E402
from utils import OneLineParser, demand_writable, run_script  # noqa: E402

WIDTH, HEIGHT = 416, 128
SETTING = Setting(rotation=0.4, moving_cars=5)
STREETS, FRAMES, EVERY = 2, 30, 5  # of each seed
NEAREST_M, FARTHEST_M, DEPTHS = 2.0, 80.0, 96
KEEPS_M = 0.3  # a car that comes no closer between the neighbours keeps its distance
BEGIN, END = "<!-- table: benchmarks/objective.py -->", "<!-- end of objective -->"
SWEEP = {
    "seen twice": "both neighbours see it",
    "hidden once": "one neighbour does not see it",
}
MASKED = {"following": "cars that keep their distance", "still": "what stands still"}


class View(NamedTuple):
    """An image [1 3 H W] in [0, 1] with depth [H W] in metres (0 = sky) and things [H W]."""

    image: Tensor
    depth_m: np.ndarray
    thing: np.ndarray


def view(film: Film, frame: int, K: np.ndarray, rays: np.ndarray) -> View:
    """What the camera sees."""
    image, depth_m, thing = render(film.at(frame), film.poses[frame], K, rays)
    depth_m = np.where(np.isfinite(depth_m), depth_m, 0)
    return View(torch.tensor(image).float().permute(2, 0, 1)[None], depth_m, thing)


def errors_of(
    depth_m: Tensor, sources: list[View], T: list[np.ndarray], K: Tensor, target: Target
) -> Tensor:
    """Photometric error [S H W] of the sources seen from the target, at a depth [H W]."""
    points = backproject(depth_m[None, None], torch.linalg.inv(K))
    motions = [torch.tensor(t, dtype=torch.float32)[None] for t in T]
    grids = [project(points, K, motion, HEIGHT, WIDTH) for motion in motions]
    pairs = zip(sources, grids, strict=True)
    return torch.cat([photometric_error(warp(s.image, grid), target) for s, grid in pairs])


def keeping(film: Film, frame: int) -> list[int]:
    """Things that move and keep their distance to the camera."""
    before, after = (np.linalg.inv(film.poses[i]) @ film.places[i] for i in (frame - 1, frame + 1))
    way = np.linalg.norm((after - before)[:, :3, 3], axis=1)
    return [thing for thing, metres in zip(film.movers, way, strict=True) if metres < KEEPS_M]


def look_at(film: Film, frame: int) -> dict[str, np.ndarray]:
    """Errors and masked shares at one frame: arrays of one value for each pixel that counts."""
    K = nominal_K(WIDTH, HEIGHT)
    rays = pixel_rays(K, HEIGHT, WIDTH)
    here, *sources = (view(film, i, K, rays) for i in (frame, frame - 1, frame + 1))
    T = [np.linalg.inv(film.poses[i]) @ film.poses[frame] for i in (frame - 1, frame + 1)]
    hidden = [
        is_hidden(here.depth_m, s.depth_m, t, K, rays) for s, t in zip(sources, T, strict=True)
    ]
    counts = (here.depth_m > NEAREST_M) & (here.depth_m < FARTHEST_M)
    still = counts & ~np.isin(here.thing, film.movers)
    where = {"seen twice": ~hidden[0] & ~hidden[1], "hidden once": hidden[0] ^ hidden[1]}

    K_torch = torch.tensor(K, dtype=torch.float32)[None]
    target = Target.of(here.image)
    candidates = 1 / torch.linspace(1 / FARTHEST_M, 1 / NEAREST_M, DEPTHS)
    swept = torch.stack(
        [
            errors_of(depth.expand(HEIGHT, WIDTH), sources, T, K_torch, target)
            for depth in candidates
        ]
    )
    result = {}
    for name, error in (("mean", swept.mean(1)), ("minimum", swept.amin(1))):
        chosen = candidates[error.argmin(0)].numpy()
        off = np.abs(chosen - here.depth_m) / np.maximum(here.depth_m, NEAREST_M)
        result |= {f"{name}, {part}": off[still & seen] for part, seen in where.items()}

    truth = torch.tensor(np.where(here.depth_m > 0, here.depth_m, 1e4), dtype=torch.float32)
    moved = errors_of(truth, sources, T, K_torch, target).amin(0)
    unmoved = torch.cat([photometric_error(s.image, target) for s in sources]).amin(0)
    masked = (unmoved < moved).numpy()
    following = counts & np.isin(here.thing, keeping(film, frame))
    return result | {"following": masked[following], "still": masked[still]}


def means(seed: int, bar: tqdm) -> dict[str, float]:
    """Means over all pixels of the streets of one seed."""
    found: dict[str, list[np.ndarray]] = {}
    for number in range(1, STREETS + 1):
        rng = np.random.default_rng([seed, number])
        film = street(rng, FRAMES, SETTING, torch.device("cpu"))
        for frame in range(2, FRAMES - 2, EVERY):
            for name, values in look_at(film, frame).items():
                found.setdefault(name, []).append(values)
            bar.update()
    return {name: float(np.concatenate(values).mean()) for name, values in found.items()}


def table(rows: list[dict[str, float]]) -> str:
    """Means and spreads over the seeds, in Markdown."""
    lines = [
        "| abs_rel of the depth with the least error, where | mean | minimum |",
        "|---|---|---|",
    ]
    for part, words in SWEEP.items():
        cells = [spread([r[f"{name}, {part}"] for r in rows]) for name in ("mean", "minimum")]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += ["", "| share that auto-masking leaves out of | |", "|---|---|"]
    lines += [f"| {words} | {spread([r[part] for r in rows])} |" for part, words in MASKED.items()]
    return "\n".join(lines)


def main() -> None:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "ablations.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    demand_writable(arguments.out)
    frames = len(arguments.seeds) * STREETS * len(range(2, FRAMES - 2, EVERY))
    with tqdm(total=frames, unit="frame", dynamic_ncols=True) as bar:
        rows = [means(seed, bar) for seed in arguments.seeds]
    text = table(rows)
    put_between(arguments.out, BEGIN, END, f"{len(rows)} seeds:\n\n{text}")
    print(f"{text}\n\nin {arguments.out}")


if __name__ == "__main__":
    run_script(main)
