"""Samples for self-supervised training: a target frame with its neighbours and stereo partner."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from metrics import Crop, Protocol, full_frame
from utils import UserError

from .images import read_image, read_pixels, resize_fast
from .intrinsics import crop_K, in_pixels, pinhole, resize_K
from .jitter import ColorJitter
from .splits import Frame

EXTENSIONS = (".jpg", ".png", ".jpeg")  # of frames; of one frame, the first is taken
OTHER_SIDE = {"l": "r", "r": "l"}
Intrinsics = Literal["nominal", "calib"]


class MonoDataset(Dataset):
    """Frames of one camera (or a stereo pair), resized to the network's input.

    A subclass says where files are (`image_stem`), what the camera is (`calibrated_K`,
    `nominal_K`) and, if it can, the true depth (`depth_path`, `read_depth`).

    Args:
        data_path: root of the data set on disk.
        frames: targets, usually from `read_split`.
        height, width: size of the network's input in pixels.
        frame_ids: temporal offsets of a sample, 0 first; none for ground truth without images.
        use_stereo: add the other camera's image of the same moment as the last frame.
        augment: flip (half of the samples) and jitter colours (half of the samples).
        png: take PNG files only; otherwise JPEG or PNG, whichever is there.
        fast_resize: by `resize_fast` instead of the filter that published results are scored with.
        intrinsics: the data set's `nominal` camera, or the `calib` files of each recording.
        with_depth: add the ground truth where there is a file for it.
        input_crop: (height, width) of an image -> rows and columns of it that become the input.

    Raises:
        UserError: missing data, before anything is trained. Targets without neighbouring frames
            are no error: they are left out and `left_out` says how many, unless none remains.
    """

    nominal_K: tuple[float, float, float, float] | None  # fx, cx by width; fy, cy by height
    protocol: Protocol | None = None  # how its depth is scored; None without ground truth
    protocols: Mapping[str, Protocol] = {}  # of its benchmarks, by name, where there are several
    baseline = 0.1  # of the nominal stereo rig, in the network's units
    one_camera_per_recording = True  # all frames of a folder and side share theirs
    input_crop: Crop | None = None
    has_masks = False  # whether any `valid_pixels` are known
    how_to_get = ""  # lines that say where the data is and how to prepare it

    def __init__(
        self,
        data_path: Path,
        frames: list[Frame],
        height: int,
        width: int,
        frame_ids: tuple[int, ...] = (0,),
        use_stereo: bool = False,
        augment: bool = False,
        png: bool = False,
        fast_resize: bool = False,
        intrinsics: Intrinsics = "nominal",
        with_depth: bool = False,
        input_crop: Crop | None = None,
    ):
        self.data_path = Path(data_path)
        self.height, self.width = height, width
        self.frame_ids = tuple(frame_ids)
        self.use_stereo = use_stereo
        self.augment = augment
        self.extensions = (".png",) if png else EXTENSIONS
        self.intrinsics = intrinsics
        self.with_depth = with_depth
        self.input_crop = input_crop or self.input_crop
        self.fast_resize = fast_resize
        self.jitter = ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1)
        self._listings: dict[Path, frozenset[str]] = {}
        self._cameras: dict[Frame, Tensor] = {}
        self.demand_data(self.data_path)
        self.frames, self.left_out = self._complete(frames)
        for recording, frame in {self._recording(f): f for f in self.frames}.items():
            self._cameras[recording] = self._camera(frame)
        self.cameras = sorted({self.camera_name(frame) for frame in self.frames})
        self._listings.clear()  # workers find files anew, and one that vanished is missed by name

    @classmethod
    def demand_data(cls, data_path: Path) -> None:
        """Refuse a data folder that is not there.

        Raises:
            UserError: saying where the data is to be had, if the data set knows.
        """
        if not data_path.is_dir():
            raise UserError(
                f"{data_path}: no such data folder; give the right one by --data_path",
                cls.how_to_get,
            )

    # What a data set is ---------------------------------------------------------------------------

    def image_stem(self, frame: Frame) -> Path:
        """Path of an image without its extension."""
        raise NotImplementedError

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        """Intrinsics in pixels from the recording's calibration, and the (width, height) of it."""
        raise NotImplementedError

    def same_recording(self, frame: Frame, other: Frame) -> bool:
        """Whether two frames of one folder were filmed in one go, so that motion links them."""
        return True

    def depth_path(self, frame: Frame) -> Path | None:
        """File that holds the ground truth of a frame; None where the data set has none."""
        return None

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        """Ground truth of a frame in metres, 0 = missing, from the existing `depth_path`."""
        raise NotImplementedError

    def depth_source(self) -> str:
        """One line that says where the ground truth comes from."""
        raise NotImplementedError

    def baseline_of(self, frame: Frame) -> float:
        """How far to the right the right camera of a stereo pair is, in the network's units."""
        return self.baseline

    def valid_pixels(self, frame: Frame) -> Bool[np.ndarray, "H W"] | None:
        """Where a frame shows the world and not its own vehicle; None where all of it counts."""
        return None

    def camera_name(self, frame: Frame) -> str:
        """Frames whose cameras have the same name were filmed by the same one."""
        return frame.folder

    # Samples --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """A sample: color, color_aug uint8 [F 3 H W]; K [3 3] in pixels; camera, its place in
        `cameras` or -1; stereo_T [4 4] with stereo; valid bool [H W] if the data set has masks;
        depth_gt [h w] (or None) if asked for. In memory, images have their colours last.

        `color_aug` is jittered alike over all frames, for the networks only. A flip mirrors the
        principal point and turns the stereo baseline round.
        """
        frame = self.frames[i]
        images = [self._image(frame._replace(index=frame.index + k)) for k in self.frame_ids]
        if self.use_stereo:
            images.append(self._image(frame._replace(side=OTHER_SIDE[frame.side])))
        color = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
        K = self._cameras[self._recording(frame)].clone()
        flip = self.augment and bool(torch.rand(()) < 0.5)
        if flip:
            color = color.flip(-1)
            K[0, 2] = self.width - 1 - K[0, 2]
        jitter = self.augment and bool(torch.rand(()) < 0.5)
        sample = {"color": color, "color_aug": self.jitter(color) if jitter else color, "K": K}
        name = self.camera_name(frame)
        sample["camera"] = self.cameras.index(name) if name in self.cameras else -1
        if self.has_masks:
            valid = self._valid(frame)
            sample["valid"] = valid.flip(-1) if flip else valid
        if self.use_stereo:
            sample["stereo_T"] = torch.eye(4)
            towards_left = (frame.side == "r") != flip
            baseline = self.baseline_of(frame)
            sample["stereo_T"][0, 3] = baseline if towards_left else -baseline
        if self.with_depth:
            sample["depth_gt"] = self.ground_truth(i)
        return sample

    def ground_truth(self, i: int) -> Float[np.ndarray, "H W"] | None:
        """True depth of sample i in metres, at the size of the recording, 0 = missing or of the own
        vehicle."""
        frame = self.frames[i]
        path, valid = self.depth_path(frame), self.valid_pixels(frame)
        if path is None or not path.is_file():
            return None
        depth = self.read_depth(frame)
        if valid is not None:
            size = depth.shape[::-1]
            depth = depth * cv2.resize(valid.astype(np.uint8), size, None, 0, 0, cv2.INTER_NEAREST)
        return depth

    def camera_of(self, name: str) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        """Intrinsics of one of `cameras` in pixels of its images, and their (width, height)."""
        return self._image_camera(next(f for f in self.frames if self.camera_name(f) == name))

    def try_ground_truth(self) -> None:
        """Read the first ground truth of each recording, so that a bad file shows at the start.

        Raises:
            UserError: as `read_depth`.
        """
        first = {}
        for frame in self.frames:
            if (frame.folder, frame.side) not in first:
                path = self.depth_path(frame)
                if path is not None and path.is_file():
                    first[frame.folder, frame.side] = self.read_depth(frame)

    # Files ----------------------------------------------------------------------------------------

    def find_image(self, frame: Frame) -> Path | None:
        """The image file of a frame, or None. A folder is listed once, not asked for each file."""
        stem = self.image_stem(frame)
        if stem.parent not in self._listings:
            try:
                names = frozenset(os.listdir(stem.parent))
            except OSError:
                names = frozenset()
            self._listings[stem.parent] = names
        for extension in self.extensions:
            if stem.name + extension in self._listings[stem.parent]:
                return stem.with_name(stem.name + extension)
        return None

    def _complete(self, frames: list[Frame]) -> tuple[list[Frame], str]:
        """Frames whose images all exist, and a message about those that lack a neighbour."""
        whole, absent, lonely = [], [], []
        for frame in frames:
            needed = [frame] if self.frame_ids else []
            if self.use_stereo:
                needed.append(frame._replace(side=OTHER_SIDE[frame.side]))
            gaps = [f for f in needed if self.find_image(f) is None]
            neighbours = [frame._replace(index=frame.index + k) for k in self.frame_ids[1:]]
            if gaps:
                absent.append(gaps[0])
            elif any(
                f.index < 0 or self.find_image(f) is None or not self.same_recording(frame, f)
                for f in neighbours
            ):
                lonely.append(frame)
            else:
                whole.append(frame)
        kinds = " or ".join(e[1:].upper() for e in self.extensions[:2])
        if absent:
            raise UserError(
                f"{self.image_stem(absent[0])}: no {kinds} image for '{absent[0]}' "
                f"({len(absent)} of {len(frames)} frames of the split lack theirs): "
                "complete the data, correct --data_path, or take the lines out of the split",
                self.how_to_get if len(absent) == len(frames) else "",
            )
        if not lonely:
            return whole, ""
        message = (
            f"{len(lonely)} of {len(frames)} frames lack a neighbour at "
            f"{' '.join(f'{k:+d}' for k in self.frame_ids[1:])} (first: '{lonely[0]}')"
        )
        if not whole:
            raise UserError(f"{self.data_path}: {message}: nothing remains, change --frame_ids")
        return whole, f"{message}: left out"

    def _image(self, frame: Frame) -> UInt8[Tensor, "3 H W"]:
        path = self.find_image(frame)
        if path is None:
            raise UserError(f"{self.image_stem(frame)}: the image has gone since the start")
        if self.fast_resize:
            pixels = read_pixels(path)
            rows, columns = self._part(path, *pixels.shape[1:])
            return resize_fast(pixels[:, rows, columns], self.height, self.width)
        image = read_image(path)
        rows, columns = self._part(path, image.height, image.width)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        resized = image.resize((self.width, self.height), Image.Resampling.LANCZOS, box)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def _part(self, path: Path, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of an image that become the network's input."""
        try:
            return (self.input_crop or full_frame)(height, width)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _valid(self, frame: Frame) -> Bool[Tensor, "H W"]:
        """Pixels of the network's input that show nothing of the own vehicle."""
        whole = self.valid_pixels(frame)
        if whole is None:
            return torch.ones(self.height, self.width, dtype=torch.bool)
        share = cv2.resize(
            whole.astype(np.float32), (self.width, self.height), interpolation=cv2.INTER_AREA
        )
        return torch.from_numpy(share > 0.999)

    def _recording(self, frame: Frame) -> Frame:
        """The key under which a frame's camera is kept."""
        return frame._replace(index=0) if self.one_camera_per_recording else frame

    def _image_camera(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        """Intrinsics in pixels of images of a (width, height), before any is cut or resized."""
        if self.intrinsics == "nominal" and self.nominal_K is not None:
            size = read_image(self.find_image(frame)).size
            return in_pixels(pinhole(*self.nominal_K), size), size
        return self.calibrated_K(frame)

    def _camera(self, frame: Frame) -> Float[Tensor, "3 3"]:
        """Intrinsics in pixels at the network's input size."""
        new_size = (self.width, self.height)
        nominal = self.intrinsics == "nominal" and self.nominal_K is not None
        if nominal and self.input_crop is None:  # as published: without regard to pixel centres
            K = in_pixels(pinhole(*self.nominal_K), new_size)
            return torch.tensor(K, dtype=torch.float32)
        K, size = self._image_camera(frame)
        if self.input_crop is not None:
            rows, columns = self.input_crop(size[1], size[0])
            K = crop_K(K, columns.start, rows.start)
            size = (columns.stop - columns.start, rows.stop - rows.start)
        return torch.tensor(resize_K(K, size, new_size), dtype=torch.float32)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: tensors stacked (images with colours last in memory, as they are), ground truth,
    whose sizes differ, as a list.

    `color_aug` holds the jittered samples alone and `jittered` says which these are: the others
    are as in `color`, and need not be copied twice.
    """
    samples = [dict(sample) for sample in samples]
    depths = [sample.pop("depth_gt") for sample in samples if "depth_gt" in sample]
    augmented = [sample.pop("color_aug") for sample in samples]
    color = [sample.pop("color") for sample in samples]
    jittered = [i for i, images in enumerate(augmented) if images is not color[i]]
    batch = default_collate(samples) | {"color": stack_images(color)}
    batch["jittered"] = torch.tensor(jittered, dtype=torch.long)
    some = [augmented[i] for i in jittered]
    batch["color_aug"] = stack_images(some) if some else batch["color"][:0]
    if depths:
        batch["depth_gt"] = depths
    return batch


def stack_images(images: list[UInt8[Tensor, "F 3 H W"]]) -> UInt8[Tensor, "B F 3 H W"]:
    """Images of several samples in one tensor, with colours last in memory."""
    return default_collate([one.permute(0, 2, 3, 1) for one in images]).permute(0, 1, 4, 2, 3)
