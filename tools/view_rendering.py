"""Depth-image-based rendering: what a camera elsewhere sees of an image with depth.

Pixels are lifted by paper eq. 2 and seen by another camera. What the image does not show, behind
its things and beyond its borders, stays a hole, or goes on as what is behind.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

STEP = 0.05  # of depth, from pixel to pixel: more is the edge of a thing, unless it is a slope
ON_SLOPE = 0.5  # of a step that its neighbour on a slope may differ by
SEAM_PX = 0.05  # that the surfaces around edges overlap by, as they bend
LEAST_SHRINK = 0.02  # nearest to the new camera that is shown, as a share of the old depth
EDGE_RATIO = 1.15  # of depths across the edge of a thing that hides or blurs what is behind
BLUR_SHARE = 1 / 256  # of an image's width: half of how wide a prediction blurs such edges
NEAR_BY = 3  # pixels to a side from which colours of the background are taken


class View(NamedTuple):
    """What a virtual camera sees; `inverse_depth` is along its axis, 0 for the infinitely far."""

    image: UInt8[ndarray, "H W 3"]  # black where nothing is seen
    seen: Bool[ndarray, "H W"]
    inverse_depth: Float[ndarray, "H W"]


# The surface of a depth map -----------------------------------------------------------------------


class Surface(NamedTuple):
    """A depth map as pieces of planes: inverse depth is linear in the pixels of a plane's image.

    Attributes:
        inverse: inverse depth of pixels, NaN where it is unknown.
        du, dv: slope of it along rows and columns, by the neighbours on the same thing.
        whole: whether the cell between a pixel and the next in row and column is of one thing.
    """

    inverse: Float[ndarray, "H W"]
    du: Float[ndarray, "H W"]
    dv: Float[ndarray, "H W"]
    whole: Bool[ndarray, "H-1 W-1"]


def surface_of_depth(depth: Float[ndarray, "H W"]) -> Surface:
    """The surface, torn at the edges of things.

    Args:
        depth: along the optical axis; 0 or NaN where unknown, inf where infinitely far.
    """
    known = depth > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(known, 1 / depth.astype(np.float64), np.nan)
    du, joined_u = _slopes(inverse)
    dv, joined_v = _slopes(inverse.T)
    joined_v = joined_v.T
    whole = joined_u[:-1] & joined_u[1:] & joined_v[:, :-1] & joined_v[:, 1:]
    return Surface(inverse, du, dv.T, whole)


def _slopes(
    inverse: Float[ndarray, "H W"],
) -> tuple[Float[ndarray, "H W"], Bool[ndarray, "H W-1"]]:
    """Slope of inverse depth along rows, and whether a pixel and the next are of one thing."""
    step = np.diff(inverse, axis=1)
    size = np.abs(step)
    flat = size <= STEP * np.minimum(inverse[:, 1:], inverse[:, :-1])
    same = np.abs(np.diff(step, axis=1)) < ON_SLOPE * np.maximum(size[:, 1:], size[:, :-1])
    same = np.pad(same, ((0, 0), (1, 1)))
    joined = flat | (same[:, 1:] | same[:, :-1]) & np.isfinite(step)
    sides = np.pad(joined, ((0, 0), (1, 1))).astype(np.float64)
    steps = np.pad(np.where(joined, step, 0), ((0, 0), (1, 1)))
    slope = (steps[:, 1:] + steps[:, :-1]) / np.maximum(sides[:, 1:] + sides[:, :-1], 1)
    return slope, joined


def sharpened(depth: Float[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """A predicted depth map whose blurred edges are steps again.

    Depth between that of a thing and of what is behind it is of neither, and would be seen as
    loose points or a skin between them. Where inverse depth changes much in a small window and
    hardly more in one twice as wide, it becomes the window's least or largest, whichever is nearer;
    on slopes the wider window has twice the change, so they stay.
    """
    inverse = (1 / depth).astype(np.float32)
    reach = math.ceil(BLUR_SHARE * depth.shape[1])
    (least, largest), (wide_least, wide_largest) = (
        (cv2.erode(inverse, kernel), cv2.dilate(inverse, kernel))
        for kernel in (np.ones((2 * r + 1,) * 2, np.uint8) for r in (reach, 2 * reach))
    )
    edge = largest > EDGE_RATIO * least
    edge &= largest - least > 0.7 * (wide_largest - wide_least)
    sharp = np.where(largest - inverse < inverse - least, largest, least)
    return 1 / np.where(edge, sharp, inverse).astype(np.float64)


# Rendering ---------------------------------------------------------------------------------------


class Faces(NamedTuple):
    """Pieces of planes in the image: triangles of whole cells, or quarters of torn ones.

    A face reaches from its pixel along `sides`, each 1 or -1, in u and v: by one pixel where it is
    a triangle, by half a pixel where it is a square.
    """

    pixel: Int[ndarray, "N 2"]  # u, v
    inverse: Float[ndarray, " N"]  # inverse depth at the pixel
    slope: Float[ndarray, "N 2"]  # of it along u and v
    sides: tuple[int, int]
    is_triangle: bool

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Offsets from the pixel."""
        if self.is_triangle:
            offsets = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
        else:
            ends = (-SEAM_PX, 0.5 + SEAM_PX)
            offsets = [(a, b) for a in ends for b in ends]
        return [(a * self.sides[0], b * self.sides[1]) for a, b in offsets]

    def covers(self, offset: Float[ndarray, "M 2"]) -> Bool[ndarray, " M"]:
        """Whether points at these offsets from the pixels lie in the faces."""
        a, b = (offset * self.sides).T
        if self.is_triangle:
            return (a >= -1e-6) & (b >= -1e-6) & (a + b <= 1 + 1e-6)
        low, high = -SEAM_PX, 0.5 + SEAM_PX
        return (a >= low) & (b >= low) & (a <= high) & (b <= high)


def faces_of(surface: Surface) -> Iterator[Faces]:
    """All faces of the torn surface, those of the same kind and sides at once."""
    yield from triangles_of(surface.inverse, surface.whole)
    height, width = surface.inverse.shape
    known = np.isfinite(surface.inverse)
    torn = np.pad(~surface.whole, 1)  # [y, x]: the cell above and to the left of pixel (x, y)
    for right, below in itertools.product((0, 1), repeat=2):
        cells = torn[below : below + height, right : right + width]
        v, u = np.nonzero(cells & known)
        slope = np.stack([surface.du[v, u], surface.dv[v, u]], 1)
        sides = (2 * right - 1, 2 * below - 1)
        yield Faces(np.stack([u, v], 1), surface.inverse[v, u], slope, sides, False)


def triangles_of(
    inverse: Float[ndarray, "H W"], cells: Bool[ndarray, "H-1 W-1"]
) -> Iterator[Faces]:
    """The two triangles of each of the cells, whose corners must all be known."""
    for step in (1, -1):
        v, u = np.nonzero(cells) if step == 1 else np.add(np.nonzero(cells), 1)
        own = inverse[v, u]
        slope = step * np.stack([inverse[v, u + step] - own, inverse[v + step, u] - own], 1)
        yield Faces(np.stack([u, v], 1), own, slope, (step, step), True)


class ZBuffer:
    """For each pixel of a view, the nearest point of the faces drawn so far.

    Faces are planes, so pixels of image and view are related by homographies (Hartley and Zisserman
    eq. 13.2). With inverse depth n.q of the image's pixel q, a pixel p of the view shows

        p ~ K (R K^-1 q + t n.q)    so that    q ~ x - e s,    s = n.x / (1 + n.e)

    where x = K R^-1 K^-1 p is where its ray would end infinitely far away, e = K R^-1 t the image
    of the view's camera, and s is inverse depth in the view.

    Attributes:
        inverse: of depth in the view, flat [H W]; -1 where there is nothing.
        source:  the image's point that is seen, [HW 2].
        owner:   index of the pixel whose quarter of a torn cell it lies in; -1 in a whole cell.
    """

    def __init__(self, K: Float[ndarray, "3 3"], T: Float[ndarray, "4 4"], size: tuple[int, int]):
        self.height, self.width = size
        self.A, self.a = K @ T[:3, :3] @ np.linalg.inv(K), K @ T[:3, 3]
        self.to_image = np.linalg.inv(self.A)
        self.e = self.to_image @ self.a
        self.inverse = np.full(self.height * self.width, -1.0)
        self.source = np.zeros((self.height * self.width, 2))
        self.owner = np.full(self.height * self.width, -1)

    def draw(self, faces: Faces, image_width: int) -> None:
        """Show the faces where they are nearest."""
        face, pixel = self._candidates(faces)
        v, u = np.divmod(pixel, self.width)
        x, y, w = (row[0] * u + row[1] * v + row[2] for row in self.to_image)
        (nu, nv), (pu, pv) = faces.slope[face].T, faces.pixel[face].T
        n0 = faces.inverse[face] - nu * pu - nv * pv
        with np.errstate(divide="ignore", invalid="ignore"):
            s = (nu * x + nv * y + n0 * w) / (1 + nu * self.e[0] + nv * self.e[1] + n0 * self.e[2])
            scale = w - self.e[2] * s
            source = np.stack([x - self.e[0] * s, y - self.e[1] * s], 1) / scale[:, None]
        hit = (scale > 0) & (s >= 0) & faces.covers(source - np.stack([pu, pv], 1))
        face, pixel, s, source = face[hit], pixel[hit], s[hit], source[hit]
        before = self.inverse.copy()
        np.maximum.at(self.inverse, pixel, s)
        nearest = (s == self.inverse[pixel]) & (s > before[pixel])
        face, pixel = face[nearest], pixel[nearest]
        self.source[pixel] = source[nearest]
        self.owner[pixel] = -1 if faces.is_triangle else faces.pixel[face] @ (1, image_width)

    def _candidates(self, faces: Faces) -> tuple[Int[ndarray, " M"], Int[ndarray, " M"]]:
        """Pairs of a face and a pixel of the view in the box around it."""
        low, high = np.full((len(faces.pixel), 2), np.inf), np.full((len(faces.pixel), 2), -np.inf)
        shown = np.ones(len(faces.pixel), bool)
        for corner in faces.corners:
            inverse = faces.inverse + faces.slope @ corner
            u, v = (faces.pixel + corner).T
            x, y, w = (
                row[0] * u + row[1] * v + row[2] + t * inverse
                for row, t in zip(self.A, self.a, strict=True)
            )
            shown &= w > LEAST_SHRINK
            at = np.stack([x, y], 1) / np.where(w > LEAST_SHRINK, w, 1)[:, None]
            low, high = np.minimum(low, at), np.maximum(high, at)
        ends = (self.width - 1, self.height - 1)
        low = np.ceil(np.clip(low - 1e-6, 0, np.add(ends, 1))).astype(np.int64)
        high = np.floor(np.clip(high + 1e-6, -1, ends)).astype(np.int64)
        across, down = np.maximum(high - low + 1, 0).T
        count = across * down * shown
        face = np.repeat(np.arange(len(count)), count)
        nth = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
        row, column = np.divmod(nth, across[face])
        return face, (low[face, 1] + row) * self.width + low[face, 0] + column


def render_view(
    image: UInt8[ndarray, "h w 3"],
    depth: Float[ndarray, "h w"] | None,
    K: Float[ndarray, "3 3"],
    T: Float[ndarray, "4 4"],
    height: int,
    width: int,
    fill: bool = False,
) -> View:
    """What a camera with the image's intrinsics sees of it from elsewhere.

    The depth map is a surface, torn at the edges of things, so that zooming in shows no cracks and
    nothing is stretched between a thing and what is behind it; of several layers the nearest is
    seen. Colours are the image's at the very point, bilinearly and of the same thing only.

    Args:
        depth: along the optical axis; 0 or NaN where unknown, inf where infinitely far. It is
            needed only where the camera moves.
        K: in pixels of the image, pixel centres being integers.
        T: from the image's camera to the virtual one; translation in the depth's unit.
        height, width: of the view.
        fill: give what is not seen the colours of the background beside it.
    """
    if not T[:3, 3].any():
        view = turned_view(image, K, T[:3, :3], height, width)
        return view._replace(image=spread(view.image, view.seen)) if fill else view
    surface = surface_of_depth(depth)
    if fill:
        image = unmixed(image, surface)
    buffer = ZBuffer(K, T, (height, width))
    for faces in faces_of(surface):
        buffer.draw(faces, image.shape[1])
    shown = buffer.inverse >= 0
    colours = np.zeros((height * width, 3), np.uint8)
    colours[shown] = sampled(image, buffer.source[shown], surface, buffer.owner[shown])
    view = colours.reshape(height, width, 3)
    seen = shown.reshape(height, width)
    if fill:
        behind, known = background(image, surface, K, T, (height, width))
        view = np.where(seen[..., None], view, behind)
        view = spread(view, seen | known)
    return View(view, seen, np.maximum(buffer.inverse, 0).reshape(height, width))


def turned_view(
    image: UInt8[ndarray, "h w 3"],
    K: Float[ndarray, "3 3"],
    R: Float[ndarray, "3 3"],
    height: int,
    width: int,
) -> View:
    """What the camera sees when it turns about its own centre: the homography K R K^-1, exact
    without any depth. All of it counts as infinitely far."""
    v, u = np.indices((height, width)).reshape(2, -1)
    back = K @ np.linalg.inv(R) @ np.linalg.inv(K)
    x, y, w = (row[0] * u + row[1] * v + row[2] for row in back)
    ahead = w > 0
    source = np.stack([x, y], 1) / np.where(ahead, w, 1)[:, None]
    end = np.array(image.shape[1::-1]) - 1
    seen = ahead & (source >= -1e-6).all(1) & (source <= end + 1e-6).all(1)
    view = np.zeros((height * width, 3), np.uint8)
    view[seen] = sampled(image, source[seen])
    shape = (height, width)
    return View(view.reshape(*shape, 3), seen.reshape(shape), np.zeros(shape))


def sampled(
    image: UInt8[ndarray, "h w 3"],
    source: Float[ndarray, "N 2"],
    surface: Surface | None = None,
    owner: Int[ndarray, " N"] | None = None,
) -> UInt8[ndarray, "N 3"]:
    """Bilinear samples at points of an image; those with an owner only of pixels on its plane."""
    height, width = image.shape[:2]
    cell = np.clip(np.floor(source), 0, np.maximum((width - 2, height - 2), 0)).astype(np.int64)
    part = np.clip(source - cell, 0, 1).astype(np.float32)
    torn = np.zeros(0, np.int64) if owner is None else np.flatnonzero(owner >= 0)
    flat = image.reshape(-1, 3)
    total, colour = np.zeros(len(source), np.float32), np.zeros((len(source), 3), np.float32)
    for right, below in itertools.product((0, 1), repeat=2):
        u = np.minimum(cell[:, 0] + right, width - 1)
        v = np.minimum(cell[:, 1] + below, height - 1)
        weight = np.abs(1 - right - part[:, 0]) * np.abs(1 - below - part[:, 1])
        if len(torn):
            weight[torn] *= _on_plane(surface, owner[torn], u[torn], v[torn])
        total += weight
        colour += weight[:, None] * flat[v * width + u]
    return np.rint(colour / np.maximum(total, 1e-6)[:, None]).astype(np.uint8)


def _on_plane(
    surface: Surface, owner: Int[ndarray, " N"], u: Int[ndarray, " N"], v: Int[ndarray, " N"]
) -> Bool[ndarray, " N"]:
    """Whether pixels lie about where the planes through the owners go on."""
    at_v, at_u = np.divmod(owner, surface.inverse.shape[1])
    plane = surface.inverse[at_v, at_u] + surface.du[at_v, at_u] * (u - at_u)
    plane += surface.dv[at_v, at_u] * (v - at_v)
    own = surface.inverse[v, u]
    return np.abs(own - plane) <= STEP * np.maximum(own, plane)


def unmixed(image: UInt8[ndarray, "H W 3"], surface: Surface) -> UInt8[ndarray, "H W 3"]:
    """An image whose pixels just behind the edges of things have the background's colour alone.

    They show some of the thing too, which would go on all over the hole beside it. They get the
    mean of the pixels of about their depth near by that touch no edge.
    """
    inverse = np.nan_to_num(surface.inverse)
    torn = np.pad(~surface.whole, 1)
    edge = torn[1:, 1:] | torn[1:, :-1] | torn[:-1, 1:] | torn[:-1, :-1]
    v, u = np.nonzero(edge & (cv2.dilate(inverse, np.ones((3, 3))) > EDGE_RATIO * inverse))
    own, (height, width) = inverse[v, u], inverse.shape
    total, colour = np.zeros(len(v)), np.zeros((len(v), 3))
    for down, right in itertools.product(range(-NEAR_BY, NEAR_BY + 1), repeat=2):
        at = np.clip(v + down, 0, height - 1), np.clip(u + right, 0, width - 1)
        alike = np.abs(inverse[at] - own) <= (1 - 1 / EDGE_RATIO) * own
        weight = (alike & ~edge[at]).astype(np.float64)
        total += weight
        colour += weight[:, None] * image[at]
    some = total > 0
    result = image.copy()
    result[v[some], u[some]] = np.rint(colour[some] / total[some, None])
    return result


def background(
    image: UInt8[ndarray, "h w 3"],
    surface: Surface,
    K: Float[ndarray, "3 3"],
    T: Float[ndarray, "4 4"],
    size: tuple[int, int],
) -> tuple[UInt8[ndarray, "H W 3"], Bool[ndarray, "H W"]]:
    """Colours of what is behind, for where the torn cells tear open, and where that is.

    A torn cell, stretched, covers the hole between a thing and what is behind it; all of it gets
    the colour of its farthest corner.
    """
    inverse, whole = surface.inverse, surface.whole
    known = np.isfinite(inverse)
    cells = ~whole & known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]
    buffer = ZBuffer(K, T, size)
    for faces in triangles_of(inverse, cells):
        buffer.draw(faces, image.shape[1])
    there = buffer.inverse >= 0
    u, v = np.floor(np.clip(buffer.source[there], 0, np.array(whole.shape[::-1]) - 1)).astype(int).T
    corners = np.stack([inverse[v + y, u + x] for y in (0, 1) for x in (0, 1)])
    y, x = np.divmod(corners.argmin(0), 2)
    colours = np.zeros((len(there), 3), np.uint8)
    colours[there] = image[v + y, u + x]
    return colours.reshape(*size, 3), there.reshape(size)


def spread(view: UInt8[ndarray, "H W 3"], known: Bool[ndarray, "H W"]) -> UInt8[ndarray, "H W 3"]:
    """A view that goes on from where it is known, the more blurred the farther from there.

    Means of ever larger squares (push and pull).
    """
    if known.all() or not known.any():
        return view
    weight = known.astype(np.float32)
    blurred = _pulled(view.astype(np.float32) * weight[..., None], weight)
    return np.where(known[..., None], view, np.rint(blurred).astype(np.uint8))


def _pulled(
    colour: Float[ndarray, "H W 3"], weight: Float[ndarray, "H W"]
) -> Float[ndarray, "H W 3"]:
    """Colours, given times their weights, where there is weight; else those of half the size."""
    mean = colour / np.maximum(weight, 1e-6)[..., None]
    height, width = weight.shape
    if weight.min() > 0 or height * width == 1:
        return mean
    half = ((width + 1) // 2, (height + 1) // 2)
    less = [cv2.resize(part, half, interpolation=cv2.INTER_AREA) for part in (colour, weight)]
    coarse = cv2.resize(_pulled(*less), (width, height), interpolation=cv2.INTER_LINEAR)
    solid = np.minimum(weight, 1)[..., None]
    return solid * mean + (1 - solid) * coarse
