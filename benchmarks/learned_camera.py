"""How near --learn_intrinsics comes to the true focal length, from one that is wrong.

    python benchmarks/learned_camera.py --work demo/learned_camera

Rooms filmed by a camera that turns more or less, K wrong by a factor, a training of some minutes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.intrinsics import resize_K  # noqa: E402
from datasets.kinect import COLOUR_K, HEIGHT, WIDTH  # noqa: E402
from tools.make_split import make_split  # noqa: E402
from tools.prepared import claim  # noqa: E402
from tools.render import pixel_rays, render  # noqa: E402
from tools.sample_files import developed  # noqa: E402
from tools.scenery import Setting, room  # noqa: E402
from utils import OneLineParser, UserError, atomic_write, in_parallel, run_script  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SIZE = (256, 192)
ROOMS, FRAMES = 10, 22
TRAINING = (
    "--dataset folder --weights_init scratch --height 96 --width 128 --max_depth 10 "
    "--batch_size 8 --learning_rate 4e-4 --scheduler_step_size 100 --log_frequency 50 "
    "--learn_intrinsics --model_name learned"
)


def make_rooms(out: Path, rotation: float, wrong: float, stride: int) -> None:
    """Sequences of rooms, by one camera, whose focal lengths are `wrong` times the true ones."""
    K = resize_K(COLOUR_K, (WIDTH, HEIGHT), SIZE)
    rays = pixel_rays(K, SIZE[1], SIZE[0])
    claim(out, {"rotation": rotation, "wrong": wrong, "stride": stride})
    camera = {"fx": wrong * K[0, 0], "fy": wrong * K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    camera |= {"width": SIZE[0], "height": SIZE[1], "camera": "one"}

    def film(number: int) -> None:
        made = room(
            np.random.default_rng([7, number]), FRAMES, Setting(rotation=rotation),
            torch.device("cpu"),
        )  # fmt: skip
        folder = out / f"room_{number}"
        for i, pose in enumerate(made.poses):
            image, _, _ = render(made.at(i), pose, K, rays)
            with atomic_write(folder / f"{i:06d}.jpg") as file:
                developed(image, made.gain[i]).save(file, "JPEG", quality=95)
        with atomic_write(folder / "intrinsics.json", "w") as file:
            json.dump(camera, file)

    in_parallel(film, range(ROOMS), -1, "room")
    make_split(out, "video", 0.1, stride, [], overwrite=True)


def learned(data: Path, work: Path, stride: int, epochs: int) -> float:
    """The factor of the given focal length that a training ends at."""
    ids = ["0", str(-stride), str(stride)]
    command = [sys.executable, ROOT / "train.py", *TRAINING.split(), "--data_path", data]
    command += ["--log_dir", work, "--num_epochs", str(epochs), "--save_frequency", str(epochs)]
    subprocess.run([*command, "--frame_ids", *ids], check=True)
    camera = work / f"learned/models/weights_{epochs - 1}/cameras.json"
    given = json.loads((data / "room_0/intrinsics.json").read_text())
    one = json.loads(camera.read_text())["one"]
    return (one["fx"] / one["width"]) / (given["fx"] / given["width"])


def main() -> None:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    default = Path("demo/learned_camera")
    parser.add_argument("--work", type=Path, default=default, help="folder to work in")
    parser.add_argument("--rotation", type=float, default=4.0, help="of the camera, as make_sample")
    parser.add_argument("--wrong", type=float, default=1.2, help="times the true focal length")
    parser.add_argument("--stride", type=int, default=2, help="N of --frame_ids 0 -N N")
    parser.add_argument("--epochs", type=int, default=30, help="of the training")
    given = parser.parse_args()
    if given.epochs < 1:
        raise UserError(f"--epochs {given.epochs}: give 1 or more")
    torch.set_num_threads(1)
    name = f"rotation_{given.rotation:g}_wrong_{given.wrong:g}_stride_{given.stride}"
    work = given.work / name
    make_rooms(work / "data", given.rotation, given.wrong, given.stride)
    factor = learned(work / "data", work, given.stride, given.epochs)
    print(
        f"rotation {given.rotation:g}, stride {given.stride}, {given.epochs} epochs: from "
        f"{given.wrong:.2f} to {given.wrong * factor:.3f} of the true focal length"
    )


if __name__ == "__main__":
    run_script(main)
