"""Whether images are there and alike, and whether their camera is one."""

import math

import numpy as np
from jaxtyping import Float

from datasets import Frame, MonoDataset, VideoFolder
from datasets.folder import numbered_files
from media import dark_margins

from .frames import Camera, Reader
from .report import Finding

OFF_MIDDLE = 0.12, 0.3  # of the size: a lens is centred better, KITTI's within 0.03; only a crop
SHAPES = 0.45, 2.5  # of what cameras take: portrait and wide screen
SAY = "write 'reshaped': true"
ASPECT = 0.8, 1.25  # of a pixel: sensors have square ones
FIELD_DEG = 15.0, 140.0  # a telephoto lens, and what a pinhole can be of at most
SAME_SHAPE = 0.01  # relative difference of aspects that rounding makes when images are resized
NOMINAL = 0.05  # relative difference of focal lengths at which the published camera is another
BORDER = 0.02  # share of the size that is one
CHECK = "camera"


def check_files(reader: Reader) -> list[Finding]:
    """Frames and depth that could not be read."""
    if not reader.unreadable:
        return []
    count = len(reader.unreadable)
    first = next(iter(reader.unreadable.values()))
    more = f" ({count} such files)" if count > 1 else ""
    fix = "replace the files, or take their frames out of the split"
    return [Finding("fault", "files", f"{first}{more}", fix, tuple(reader.unreadable))]


def check_folders(dataset: MonoDataset, folder: str) -> list[Finding]:
    """Whether the folders that an intrinsics.json names hold images of a sequence's frames."""
    if not isinstance(dataset, VideoFolder):
        return []
    sequence, findings = dataset.sequence(folder), []
    frames = numbered_files(sequence.images, dataset.extensions).keys()
    for name, path, ends in (
        ("stereo", sequence.partner, dataset.extensions),
        ("depth", sequence.depth, (".png",)),
    ):
        if path is not None and not numbered_files(path, ends).keys() & frames:
            what = f"{path}: has no image of these frames, though intrinsics.json names it"
            fix = f"add the images under the frames' numbers, or take '{name}' out"
            findings.append(Finding("fault", f"{name} images", what, fix))
    return findings


def check_sizes(reader: Reader, frames: list[Frame]) -> list[Finding]:
    """Whether all images of a sequence have one size, which is the one their camera is for."""
    sizes = {frame: reader.sizes[frame] for frame in frames if frame in reader.sizes}
    if not sizes:
        return []
    counts: dict[tuple[int, int], list[Frame]] = {}
    for frame, size in sizes.items():
        counts.setdefault(size, []).append(frame)
    if len(counts) > 1:
        usual = max(counts, key=lambda size: len(counts[size]))
        odd = [frame for size, some in counts.items() if size != usual for frame in some]
        return [
            Finding(
                "fault",
                "image size",
                f"images of one sequence differ in size: {odd[0]} has {by(sizes[odd[0]])}, most "
                f"have {by(usual)}",
                "resize them alike, or make a sequence with a camera of its own of each size",
                tuple(map(str, odd)),
            )
        ]
    size = next(iter(counts))
    camera = reader.known_camera(frames[0])
    if size == camera.size:
        return []
    ratio = size[0] / size[1] / (camera.size[0] / camera.size[1])
    resized = abs(ratio - 1) < SAME_SHAPE
    what = f"the images have {by(size)} pixels, their camera is given for {by(camera.size)}"
    if resized:
        factor = size[0] / camera.size[0]
        what += f" (resized by {factor:.3g} afterwards?)"
        fix = f"write width, height, and K times {factor:.3g} as of these images"
    else:
        fix = "write the camera of these images: cropping moves cx and cy, resizing scales all"
    own = isinstance(reader.dataset, VideoFolder)  # the camera is written beside the images
    severity = "fault" if own or not resized else "warning"
    return [Finding(severity, "image size", what, fix)]


def by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def check_camera(reader: Reader, frame: Frame) -> list[Finding]:
    """Whether the intrinsics can be those of a camera with such images."""
    if reader.grey(frame) is None:
        return []
    known, dataset = reader.known_camera(frame), reader.dataset
    own = dataset.sequence(frame.folder) if isinstance(dataset, VideoFolder) else None
    reshaped = own is not None and own.reshaped
    findings = check_intrinsics(*known, reshaped, own is not None)
    if dataset.intrinsics == "nominal" and dataset.nominal_K is not None:
        nominal = reader.nominal_camera(frame)
        findings += check_nominal(known, nominal)
    if own is not None and own.guessed:
        findings.append(
            Finding(
                "notice",
                CHECK,
                "the camera is a guess",
                "calibrate it; --learn_intrinsics is a makeshift (docs/own_data.md)",
            )
        )
    return findings


def check_intrinsics(
    K: Float[np.ndarray, "3 3"], size: tuple[int, int], reshaped: bool = False, own: bool = True
) -> list[Finding]:
    """Principal point and shape of pixels, unless images were `reshaped` (cut, or resized to
    another shape), and field of view. `own` cameras are in an intrinsics.json, which says so."""
    say = SAY if own else "K is right"
    (fx, _, cx), (_, fy, cy), _ = K.tolist()
    width, height = size
    findings = []
    place = (cx + 0.5) / width, (cy + 0.5) / height
    off = max(abs(one - 0.5) for one in place)
    if off > OFF_MIDDLE[0] and not reshaped:
        what = (
            f"the principal point {cx:.1f}, {cy:.1f} is far from the middle of images of {by(size)}"
        )
        larger, smaller = min(place) > 0.5 + OFF_MIDDLE[0], max(place) < 0.5 - OFF_MIDDLE[0]
        if larger or smaller:
            than = "larger" if larger else "smaller"
            what += f": K looks like that of {than} images, not scaled when these were resized"
        scaled = off > OFF_MIDDLE[1] and (larger or smaller)
        findings.append(
            Finding(
                "fault" if scaled else "warning",
                CHECK,
                what,
                "scale K with the images" if scaled else f"if the images were cut so, {say}",
            )
        )
    if not ASPECT[0] < fx / fy < ASPECT[1] and not reshaped:
        seen = (width / fx) / (height / fy)  # aspect of the view
        likely = is_a_shape(seen) and not is_a_shape(width / height)
        findings.append(
            Finding(
                "warning" if likely else "fault",
                CHECK,
                f"fx {fx:.1f} and fy {fy:.1f} make pixels of {fx / fy:.2f}:1, real ones are "
                "nearly square",
                f"if images of {seen:.2f}:1 were resized to this shape, {say}; otherwise check "
                "that both are in pixels of these images (normalised ones need 'normalised': true)",
            )
        )
    field = 2 * math.degrees(math.atan(width / (2 * fx)))
    if not FIELD_DEG[0] < field < FIELD_DEG[1]:
        findings.append(
            Finding(
                "fault",
                CHECK,
                f"fx {fx:.1f} for {width} columns means a field of view of {field:.0f} degrees",
                "check that K is in pixels of these images"
                if field < FIELD_DEG[0]
                else "check K; images of a fisheye lens must be undistorted first",
            )
        )
    return findings


def is_a_shape(aspect: float) -> bool:
    """Whether cameras take pictures of that aspect."""
    return SHAPES[0] < aspect < SHAPES[1]


def check_nominal(known: Camera, nominal: Camera) -> list[Finding]:
    """Whether the published camera, which training takes, is the calibrated one."""
    scale = np.array(nominal.size) / known.size
    focal = np.array([known.K[0, 0], known.K[1, 1]]) * scale
    ratio = np.array([nominal.K[0, 0], nominal.K[1, 1]]) / focal
    if np.abs(ratio - 1).max() < NOMINAL:
        return []
    return [
        Finding(
            "warning",
            CHECK,
            f"the data set's published camera has focal lengths {ratio[0]:.2f} and {ratio[1]:.2f} "
            "times the calibrated ones",
            "train with --intrinsics calib",
        )
    ]


def check_borders(reader: Reader, frames: list[Frame]) -> list[Finding]:
    """Black bars that belong to no image of the world."""
    images = [reader.grey(frame) for frame in frames]
    images = [image for image in images if image is not None]
    if not images or reader.mask(frames[0]) is not None:
        return []
    if any(image.shape != images[0].shape for image in images):
        return []
    height, width = images[0].shape
    left, top, right, bottom = dark_margins([image[..., None] for image in images])
    shares = left / width, right / width, top / height, bottom / height
    if max(shares) < BORDER:
        return []
    return [
        Finding(
            "warning",
            "borders",
            f"a black border takes up to {max(shares):.0%} of the images",
            "cut it off, which moves cx and cy, or give a mask.png that is black there",
        )
    ]
