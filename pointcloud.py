"""Points in space of a depth map, and the files that viewers open."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from plyfile import PlyData, PlyElement

from utils import atomic_write


def points_of_depth(
    depth: Float[ndarray, "H W"], K: Float[ndarray, "3 3"]
) -> Float[ndarray, "H W 3"]:
    """Where each pixel's ray ends: depth . K^-1 (u, v, 1), x right, y down, z forward (eq. 2).

    Args:
        depth: along the optical axis, in any unit; the points are in the same.
        K: in pixels of this very map, pixel centres being integers.
    """
    v, u = np.indices(depth.shape, dtype=np.float64)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    return (rays * depth[..., None]).astype(np.float32)


def write_ply(
    path: Path,
    points: Float[ndarray, "H W 3"],
    colours: UInt8[ndarray, "H W 3"],
    kept: Bool[ndarray, "H W"],
) -> int:
    """Write the kept points as binary PLY with colours; returns how many there are."""
    fields = [(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.empty(int(kept.sum()), fields)
    for i, (name, _) in enumerate(fields):
        vertices[name] = (points if i < 3 else colours)[..., i % 3][kept]
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(file)
    return len(vertices)
