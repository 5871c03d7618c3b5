"""Predict depth for an image, a folder of images, a video or a webcam, in any of several forms."""

import contextlib
import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

from checkpoint import training_options
from datasets import depth_to_png
from datasets.kitti import STEREO_SCALE
from inference import find_weights
from media import VideoReader, VideoWriter, find_images, is_video, open_image
from metric_scale import Scale, demand_scale
from onnx_network import OnnxDepth
from options import PredictOptions, parse
from pictures import SteadyRange, disparity_picture, side_by_side
from pointcloud import points_of_depth, write_ply
from predictor import DepthPredictor
from utils import UserError, ahead, atomic_write, demand_writable, pick_device, run_script

STEREO_RIG = Scale(STEREO_SCALE, math.nan, "KITTI's stereo rig, 0.54 m for 0.1 in training")


class Picture(NamedTuple):
    """Something to predict: its image, and folder and stem of the files about it."""

    image: Image.Image
    folder: Path
    stem: str


class Forms:
    """The files that the flags ask for, of one picture after the other.

    Args:
        kinds: of --save.
    """

    def __init__(self, options: PredictOptions, predictor: DepthPredictor, kinds: tuple[str, ...]):
        self.options, self.predictor, self.kinds = options, predictor, kinds
        self.camera = options.camera
        if "ply" in kinds:
            self.camera.announce()

    def write(
        self,
        picture: Picture,
        disp: Float[ndarray, "h w"],
        uncertainty: Float[ndarray, "h w"] | None,
    ) -> None:
        """Everything about a picture."""
        base = picture.folder / picture.stem
        size, kinds = picture.image.size, self.kinds
        if "npy" in kinds and self.options.pred_metric_depth:
            save_array(f"{base}_depth.npy", self.predictor.scale.factor / disp[None, None])
        elif "npy" in kinds:
            save_array(f"{base}_disp.npy", disp[None, None])
        if "picture" in kinds:
            save_picture(f"{base}_disp.jpeg", disparity_picture(disp, size))
        if "side_by_side" in kinds:
            both = side_by_side(np.asarray(picture.image), disparity_picture(disp, size))
            save_picture(f"{base}_side_by_side.jpeg", both)
        if {"png16", "ply"} & set(kinds):
            depth = self.predictor.depth(disp, size)
            if "png16" in kinds:
                with atomic_write(f"{base}_depth.png") as file:
                    depth_to_png(depth).save(file, format="PNG")
            if "ply" in kinds:
                furthest = self.options.cloud_depth or np.percentile(depth, 95)
                points = points_of_depth(depth, self.camera.K(size))
                colours = np.asarray(picture.image)
                write_ply(Path(f"{base}.ply"), points, colours, depth <= furthest)
        if uncertainty is not None:
            if "npy" in kinds:
                save_array(f"{base}_uncertainty.npy", uncertainty[None, None])
            shown = disparity_picture(uncertainty, size, (0.0, 0.2), "viridis")
            save_picture(f"{base}_uncertainty.jpeg", shown)


def save_array(path: str, array: ndarray) -> None:
    with atomic_write(path) as file:
        np.save(file, array)


def save_picture(path: str, picture: ndarray) -> None:
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="JPEG", quality=92)


def load(options: PredictOptions) -> DepthPredictor:
    """The network of the flags, with the scale that they ask for.

    Raises:
        UserError: it cannot be loaded, or --metric without a scale.
    """
    if options.onnx is not None:
        net = OnnxDepth(options.onnx)
        predictor = DepthPredictor(
            net, net.height, net.width, net.min_depth, net.max_depth, net.scale
        )
        weights = options.onnx
    else:
        weights = find_weights(options.load_weights_folder, options.model_name, options.models_url)
        predictor = DepthPredictor.load(weights, pick_device(options.no_cuda, mps=True))
    known = predictor.scale
    own = options.onnx is None and training_options(weights).get("dataset") == "folder"
    if options.pred_metric_depth and known is None and own:
        raise UserError(
            f"--pred_metric_depth: is the scale of KITTI's rig, and {weights} were trained on "
            "other cameras: give --metric, after tools/calibrate_scale.py"
        )
    if options.metric:
        predictor.scale = demand_scale(known, weights)
    else:
        predictor.scale = (known or STEREO_RIG) if options.pred_metric_depth else None
    where = f"{predictor.width}x{predictor.height} on {predictor.device}"
    unit = f"metres {predictor.scale}" if predictor.scale else "the network's units, not metres"
    print(f"predicting at {where}; depth in {unit}")
    return predictor


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of so many items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def predict_images(options: PredictOptions, predictor: DepthPredictor, kinds: tuple) -> None:
    """Each image for itself; those that cannot be read are named, and the others go on.

    Raises:
        UserError: at the end, if any could not be read.
    """
    paths = find_images(options.image_path, options.ext)
    forms, bad = Forms(options, predictor, kinds), []
    demand_writable((options.out or paths[0].parent) / "any")

    def opened(path: Path) -> Picture | UserError:
        try:
            return Picture(open_image(path), options.out or path.parent, path.stem)
        except UserError as error:
            return error

    with tqdm(total=len(paths), unit="image", dynamic_ncols=True) as bar:
        for batch in ahead(batched(map(opened, paths), options.batch_size), 2):
            for error in batch:
                if isinstance(error, UserError):
                    bad.append(error)
                    bar.write(f"left out: {error}", file=sys.stderr)
            good = [item for item in batch if isinstance(item, Picture)]
            if good:
                predict_batch(options, predictor, forms, good)
            bar.update(len(batch))
    where = options.out or paths[0].parent
    print(f"{len(paths) - len(bad)} of {len(paths)} images predicted, files in {where}")
    if bad:
        raise UserError(
            f"{len(bad)} of {len(paths)} images could not be read (the first: {bad[0]})"
        )


def predict_batch(
    options: PredictOptions, predictor: DepthPredictor, forms: Forms, pictures: list[Picture]
) -> Float[ndarray, "B h w"]:
    """Write what is asked of some pictures; returns their disparities."""
    images = [picture.image for picture in pictures]
    disps, uncertainty = predictor.predict(images, options.post_process, options.uncertainty)
    unsure = [None] * len(disps) if uncertainty is None else uncertainty
    for picture, disp, each in zip(pictures, disps, unsure, strict=True):
        forms.write(picture, disp, each)
    return disps


def predict_video(options: PredictOptions, predictor: DepthPredictor, kinds: tuple) -> None:
    """Frame after frame, never holding more than a few; Ctrl-C ends a webcam, not the files."""
    reader = VideoReader(options.image_path)
    stem = f"webcam_{options.image_path}" if reader.is_webcam else Path(options.image_path).stem
    folder = options.out or (Path() if reader.is_webcam else Path(options.image_path).parent)
    target = folder / f"{stem}_disp.mp4"
    forms = Forms(options, predictor, tuple(kind for kind in kinds if kind != "video"))
    limit = options.max_frames
    count = reader.count if limit is None else min(limit, reader.count or limit)

    def pictures() -> Iterator[Picture]:
        for i, frame in enumerate(itertools.islice(reader, limit)):
            yield Picture(Image.fromarray(frame), folder, f"{stem}_{i:06d}")

    steady, start, done = SteadyRange(), time.perf_counter(), 0
    # A webcam is shown as it films: waiting for a batch would make it late.
    size = 1 if reader.is_webcam else options.batch_size
    with contextlib.ExitStack() as stack:
        stack.callback(reader.close)
        writer = stack.enter_context(VideoWriter(target, reader.fps)) if "video" in kinds else None
        bar = stack.enter_context(tqdm(total=count, unit="frame", dynamic_ncols=True))
        if reader.is_webcam:
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        for batch in ahead(batched(pictures(), size), 2):
            disps = predict_batch(options, predictor, forms, batch)
            for picture, disp in zip(batch, disps, strict=True):
                if writer is not None:
                    shown = disparity_picture(disp, picture.image.size, steady(disp))
                    if "side_by_side" in kinds:
                        shown = side_by_side(np.asarray(picture.image), shown)
                    writer.add(shown)
            done += len(batch)
            bar.update(len(batch))
    seconds = time.perf_counter() - start
    where = target if writer is not None else folder
    print(f"{done} frames, {done / seconds:.1f} a second, in {where}")


def main() -> None:
    options = parse(PredictOptions)
    video = is_video(options.image_path)
    kinds = options.save or (("video",) if video else ("npy", "picture"))
    idle = {"--save video": "video" in kinds, "--max_frames": options.max_frames is not None}
    for name, given in idle.items():
        if given and not video:
            raise UserError(f"{name}: {options.image_path} is no video")
    predictor = load(options)
    (predict_video if video else predict_images)(options, predictor, kinds)


if __name__ == "__main__":
    run_script(main)
