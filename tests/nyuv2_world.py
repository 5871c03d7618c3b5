"""A made-up room before the Kinect, in the files of NYU Depth V2: a wall, and a board before it."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.kinect import (
    COLOUR_DISTORTION,
    COLOUR_K,
    DEPTH_DISTORTION,
    DEPTH_K,
    HEIGHT,
    WIDTH,
)
from tools import sample_files
from tools.nyuv2_mat import write_labelled_mat
from tools.sample_files import DEPTH_IN_COLOUR

WALL_M, BOARD_M = 3.0, 1.5
BOARD = (-0.7, 0.1, -0.6, 0.6)  # left, right, top, bottom in metres
TEXELS_PER_M = 100
NO_DISTORTION = np.zeros(5)


def textures():
    """Paint of wall and board: noise of two sizes."""
    rng = np.random.default_rng(3)
    paints = []
    for _ in range(2):
        paint = np.zeros((1000, 1000, 3), np.float32)
        for cells, strength in ((40, 120), (160, 100)):
            coarse = rng.uniform(0, 1, (cells, cells, 3)).astype(np.float32)
            paint += strength * cv2.resize(coarse, (1000, 1000), interpolation=cv2.INTER_CUBIC)
        paints.append(np.clip(paint, 0, 255).astype(np.uint8))
    return paints


PAINT = textures()


def see(pose, K=COLOUR_K, distortion=NO_DISTORTION):
    """Image [480 640 3] and depth [480 640] in metres of a camera at `pose` (camera to world)."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    pixels = np.stack([u.ravel(), v.ravel()], 1)[:, None]
    flat = cv2.undistortPoints(pixels, K, distortion)[:, 0]
    rays = np.column_stack([flat, np.ones(len(flat))]) @ pose[:3, :3].T
    image, depth = None, None
    for paint, distance, (left, right, top, bottom) in (
        (PAINT[0], WALL_M, (-99, 99, -99, 99)),
        (PAINT[1], BOARD_M, BOARD),
    ):
        along = (distance - pose[2, 3]) / rays[:, 2]
        x, y = (pose[i, 3] + along * rays[:, i] for i in (0, 1))
        hit = (x > left) & (x < right) & (y > top) & (y < bottom)
        texels = [np.float32(TEXELS_PER_M * a + 500).reshape(HEIGHT, WIDTH) for a in (x, y)]
        painted = cv2.remap(paint, *texels, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        hit, along = (a.reshape(HEIGHT, WIDTH) for a in (hit, along))
        image = painted if image is None else np.where(hit[..., None], painted, image)
        depth = along if depth is None else np.where(hit, along, depth)
    return image, depth.astype(np.float32)


def pose(x_m=0.0, yaw_deg=0.0):
    """A camera beside the middle, turned about the vertical."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix()
    matrix[0, 3] = x_m
    return matrix


def write_raw_scene(folder, poses, seconds=None):
    """A raw recording: a colour and a depth image at each pose."""
    frames = (
        (
            Image.fromarray(see(where, COLOUR_K, COLOUR_DISTORTION)[0]),
            see(where @ DEPTH_IN_COLOUR, DEPTH_K, DEPTH_DISTORTION)[1],
        )
        for where in poses
    )
    sample_files.write_raw_scene(folder, frames, seconds)


def labelled_samples(count):
    """Image, filled and raw depth as the camera goes along."""
    for i in range(count):
        image, depth = see(pose(0.05 * i))
        raw = depth.copy()
        raw[100:160, 200:300] = 0
        raw[:, :40] = 0
        yield image, depth, raw


def write_mat(path, scenes):
    """The labelled set of such samples."""
    write_labelled_mat(Path(path), labelled_samples(len(scenes)), scenes)
