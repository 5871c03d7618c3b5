"""A ray caster for worlds of boxes and ellipsoids with textures that never alias.

Geometry is exact: depth comes from the same intersection as colour. Everything is torch and runs on
the device of the world.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SKY = -1  # what rays meet that meet nothing
CHUNK = 2048  # rays that are cast at once, so that they fit the cache
BLUR = 0.6  # pixels: standard deviation of the Gaussian that textures are filtered by
EDGE_SAMPLES = 2  # along each axis of a pixel that shows more than one thing
WAVES = 24  # of a texture
FINEST = 1 / 250  # of a texture's coarsest period
SUN = F.normalize(torch.tensor([0.5, -0.8, -0.35]), dim=0)  # towards it
STRENGTH = torch.tensor(np.geomspace(1, FINEST, WAVES) ** 0.55, dtype=torch.float32)
STRENGTH = STRENGTH / STRENGTH.norm()  # of each wave: as in nature, coarse ones are stronger


class Thing(NamedTuple):
    """A box or ellipsoid. Metres; x right, y down, z ahead.

    pose:     thing to world [4 4], at the middle of the thing.
    half:     half its sizes [3].
    colour:   [3] in [0, 1].
    grain_m:  coarsest period of its texture.
    contrast: of the texture; 0 is plain.
    windows:  width and height of a window with its wall, on the upright sides; 0 for none.
    """

    pose: np.ndarray
    half: np.ndarray
    colour: np.ndarray
    grain_m: float = 8.0
    contrast: float = 0.5
    is_round: bool = False
    windows: tuple[float, float] = (0.0, 0.0)


class Road(NamedTuple):
    """Paint on the first thing, the ground: lanes along x = sum of amplitude sin(rate z + phase).

    Distances from that line are in metres; beyond `kerb_m` is pavement, beyond `lawn_m` grass.
    """

    amplitude: np.ndarray
    rate: np.ndarray
    phase: np.ndarray
    kerb_m: float = 5.6
    lawn_m: float = 8.5

    def middle(self, z: np.ndarray) -> np.ndarray:
        """x of the line at z [N]."""
        return (self.amplitude * np.sin(np.multiply.outer(z, self.rate) + self.phase)).sum(-1)

    def heading(self, z: np.ndarray) -> np.ndarray:
        """Angle of the line at z [N] from z towards x, radians."""
        slope = self.rate * np.cos(np.multiply.outer(z, self.rate) + self.phase)
        return np.arctan((self.amplitude * slope).sum(-1))


class World(NamedTuple):
    """Things [M] as tensors; thing m's own frame has the axes of the thing, in metres."""

    into: Tensor  # [M 3 4], world to the thing's frame
    half: Tensor  # [M 3]
    is_round: Tensor  # [M]
    colour: Tensor  # [M 3]
    contrast: Tensor  # [M]
    windows: Tensor  # [M 2]
    waves: Tensor  # [M WAVES 3], wave vectors in cycles per metre
    phase: Tensor  # [M WAVES]
    clouds: Tensor  # [2 3], of the sky: like waves, by direction
    road: Road | None

    def moved(self, things: list[int], poses: np.ndarray) -> "World":
        """The world with some things elsewhere, at poses [n 4 4]."""
        into = self.into.clone()
        into[things] = into_frames(poses).to(into)
        return self._replace(into=into)


class Hit(NamedTuple):
    """What rays [N] meet: distance in units of the ray's length (inf: sky), thing, own point."""

    distance: Tensor  # [N]
    thing: Tensor  # [N]
    point: Tensor  # [N 3], in the thing's frame
    normal: Tensor  # [N 3], in the world


def into_frames(poses: np.ndarray) -> Tensor:
    """World to thing [n 3 4] of poses [n 4 4]."""
    return torch.tensor(np.linalg.inv(poses)[:, :3], dtype=torch.float32)


def make_world(
    rng: np.random.Generator, things: list[Thing], device: torch.device, road: Road | None = None
) -> World:
    """Things with a texture of their own each."""
    count = len(things)
    direction = rng.normal(size=(count, WAVES, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    period = np.geomspace(1, FINEST, WAVES) * rng.uniform(0.8, 1.25, (count, WAVES))
    period *= np.array([[thing.grain_m] for thing in things])

    def tensor(values: object) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32, device=device)

    return World(
        into_frames(np.array([thing.pose for thing in things])).to(device),
        tensor([thing.half for thing in things]),
        tensor([thing.is_round for thing in things]) > 0,
        tensor([thing.colour for thing in things]),
        tensor([thing.contrast for thing in things]),
        tensor([thing.windows for thing in things]),
        tensor(direction / period[..., None]),
        tensor(rng.uniform(0, 2 * np.pi, (count, WAVES))),
        tensor(rng.uniform(-4, 4, (2, 3))),
        road,
    )


# Geometry -----------------------------------------------------------------------------------------


def cast(world: World, origin: Tensor, rays: Tensor) -> Hit:
    """First thing on each ray [N 3] from `origin` [3]; neighbouring rays should look alike."""
    parts = [_cast(world, origin, part) for part in rays.split(CHUNK)]
    return Hit(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _cast(world: World, origin: Tensor, rays: Tensor) -> Hit:
    near = _in_cone(world, origin, rays)
    local = world.into[near, :, :3] @ origin + world.into[near, :, 3]
    axes = [rays @ world.into[near, axis, :3].T for axis in range(3)]  # directions [N K], thrice
    half, boxes = world.half[near], int((~world.is_round[near]).sum())  # these come first
    distance = torch.cat(
        (
            _boxes(local[:boxes], [along[:, :boxes] for along in axes], half[:boxes]),
            _ellipsoids(
                local[boxes:] / half[boxes:],
                [along[:, boxes:] / half[boxes:, axis] for axis, along in enumerate(axes)],
            ),
        ),
        dim=1,
    )
    distance, best = distance.min(1)
    thing = near[best]
    point = local[best] + distance[:, None] * torch.stack(
        [a.gather(1, best[:, None])[:, 0] for a in axes], 1
    )
    half = world.half[thing]
    side = F.one_hot((point.abs() / half).argmax(1), 3) * point.sign()
    normal = torch.where(world.is_round[thing, None], point / half**2, side)
    normal = F.normalize(torch.einsum("nij,ni->nj", world.into[thing, :, :3], normal), dim=1)
    missed = distance.isinf()
    thing[missed] = SKY
    point[missed] = 0
    return Hit(distance, thing, point, normal)


def _in_cone(world: World, origin: Tensor, rays: Tensor) -> Tensor:
    """The things whose bounding spheres reach into a cone around the rays, boxes first."""
    unit = F.normalize(rays, dim=1)
    middle = F.normalize(unit.mean(0), dim=0)
    spread = (unit @ middle).min().clamp(-1, 1).acos()
    towards = -(world.into[:, :, :3].mT @ world.into[:, :, 3:])[..., 0] - origin
    far, radius = towards.norm(dim=1), world.half.norm(dim=1)
    angle = ((towards @ middle) / far.clamp(min=1e-6)).clamp(-1, 1).acos()
    reach = (radius / far.clamp(min=1e-6)).clamp(max=1).asin()
    near = (angle <= spread + reach + 1e-3) | (far <= radius)
    parts = (near & ~world.is_round, near & world.is_round)
    return torch.cat([part.nonzero()[:, 0] for part in parts])


def _boxes(local: Tensor, axes: list[Tensor], half: Tensor) -> Tensor:
    """Distances [N K] at which rays enter boxes, inf where they do not."""
    enter, leave = torch.full_like(axes[0], -torch.inf), torch.full_like(axes[0], torch.inf)
    for axis, along in enumerate(axes):
        inverse = 1 / (along + 1e-12)
        middle, reach = -local[:, axis] * inverse, half[:, axis] * inverse.abs()
        enter = torch.maximum(enter, middle - reach)
        leave = torch.minimum(leave, middle + reach)
    return torch.where((enter <= leave) & (enter > 0), enter, torch.inf)


def _ellipsoids(local: Tensor, axes: list[Tensor]) -> Tensor:
    """The same for unit balls: half the sizes are divided out."""
    a = sum(along * along for along in axes)
    b = sum(local[:, axis] * along for axis, along in enumerate(axes))
    root = b * b - a * ((local**2).sum(1) - 1)
    near = (-b - root.clamp(min=0).sqrt()) / a
    return torch.where((root >= 0) & (near > 0), near, torch.inf)


# Colour -------------------------------------------------------------------------------------------


def shade(world: World, hit: Hit, rays: Tensor, du: Tensor, dv: Tensor) -> Tensor:
    """Colours [N 3] in [0, 1] of what rays [N 3] meet.

    du, dv [3] are by how much a ray changes to the next column and row of pixels. Textures are sums
    of waves, each faded as a Gaussian over the pixel would, so that none is ever aliased.
    """
    colours = _sky(world, rays)
    seen = (hit.thing != SKY).nonzero()[:, 0]
    thing, point, normal = hit.thing[seen], hit.point[seen], hit.normal[seen]
    steps = []  # by how much the point moves to the next pixel, in the thing's frame
    for change in (du, dv):
        facing = (normal * rays[seen]).sum(1)
        facing = facing.abs().clamp(min=1e-4).copysign(facing)  # a grazing ray has 0
        slide = change - ((normal @ change) / facing)[:, None] * rays[seen]
        step = hit.distance[seen, None] * slide
        steps.append(torch.einsum("nij,nj->ni", world.into[thing, :, :3], step))
    turns, *rates = torch.stack((point, *steps), 1).bmm(world.waves[thing].mT).unbind(1)
    fade = (-2 * (torch.pi * BLUR) ** 2 * sum(rate**2 for rate in rates)).exp()
    pattern = ((2 * torch.pi * turns + world.phase[thing]).sin() * fade) @ STRENGTH.to(turns)
    footprint = sum(step.abs() for step in steps)
    paint = world.colour[thing]
    if world.road is not None:
        ground = (thing == 0).nonzero()[:, 0]
        paint[ground] = _street(world.road, paint[ground], point[ground], footprint[ground])
    paint = paint * (1 - 0.55 * _windows(world, thing, point, normal, footprint))[:, None]
    light = 0.62 + 0.38 * (normal @ SUN.to(normal)).clamp(min=0)
    paint = paint * (light * (1 + world.contrast[thing] * pattern))[:, None]
    colours[seen] = paint
    return colours.clamp(0, 1)


def pulse(x: Tensor, width: Tensor, period: Tensor | float, share: float) -> Tensor:
    """Mean over [x - width/2, x + width/2] of a train of pulses that are 1 in [0, share period)."""

    def integral(at: Tensor) -> Tensor:
        turns = (at / period).floor()
        return period * (turns * share + (at / period - turns).clamp(max=share))

    width = width.clamp(min=1e-4)
    return (integral(x + width / 2) - integral(x - width / 2)) / width


def _windows(
    world: World, thing: Tensor, point: Tensor, normal: Tensor, footprint: Tensor
) -> Tensor:
    """How much of each pixel [N] is window."""
    size = world.windows[thing]
    upright = normal[:, 1].abs() < 0.5
    share = torch.zeros(len(thing)).to(point)
    some = ((size[:, 0] > 0) & upright).nonzero()[:, 0]
    across = point[some] + world.half[thing[some]]
    side = (point[some].abs() / world.half[thing[some]])[:, 0] > 1 - 1e-4  # seen along its x axis
    along = torch.where(side, across[:, 2], across[:, 0])
    width = torch.where(side, footprint[some, 2], footprint[some, 0])
    share[some] = pulse(along - 0.6, width, size[some, 0], 0.5) * pulse(
        across[:, 1] - 0.7, footprint[some, 1], size[some, 1], 0.55
    )
    return share


def _street(road: Road, colour: Tensor, point: Tensor, footprint: Tensor) -> Tensor:
    """Ground colours [N 3] at points of the ground's frame: lane marks, kerbs, grass."""
    x, z = point[:, 0], point[:, 2]
    waves = [torch.tensor(part, dtype=torch.float32).to(x) for part in road[:3]]
    turn = waves[1] * z[:, None] + waves[2]
    slope = (waves[0] * waves[1] * turn.cos()).sum(1)
    across = (x - (waves[0] * turn.sin()).sum(1)) / (1 + slope**2).sqrt()
    width = (footprint[:, 0] + slope.abs() * footprint[:, 2]).clamp(min=1e-3)
    along = footprint[:, 2].clamp(min=1e-3)

    def beyond(edge: float) -> Tensor:
        return ((across.abs() - edge) / width + 0.5).clamp(0, 1)

    def band(middle: float) -> Tensor:
        left = ((across - middle + 0.08) / width + 0.5).clamp(0, 1)
        return left - ((across - middle - 0.08) / width + 0.5).clamp(0, 1)

    marks = band(0.0) * pulse(z, along, 7.0, 0.45) + band(-3.4) + band(3.4)
    colour = colour + marks[:, None] * (0.85 - colour)
    for edge, tone in ((road.kerb_m, (0.58, 0.55, 0.52)), (road.lawn_m, (0.33, 0.42, 0.22))):
        colour = colour + beyond(edge)[:, None] * (torch.tensor(tone).to(colour) - colour)
    return colour


def _sky(world: World, rays: Tensor) -> Tensor:
    """Blue that pales towards the horizon, with soft clouds."""
    unit = F.normalize(rays, dim=1)
    cloud = 0.04 * (unit @ world.clouds.T * 2 * torch.pi).sin().sum(1, keepdim=True)
    up = -unit[:, 1:2]
    tone = (
        torch.tensor([[0.78, 0.84, 0.9]]).to(rays) - torch.tensor([[0.4, 0.28, 0.06]]).to(rays) * up
    )
    return tone + cloud


# Pictures -----------------------------------------------------------------------------------------


def pixel_rays(
    K: np.ndarray, height: int, width: int, distortion: np.ndarray | None = None
) -> np.ndarray:
    """Rays [H W 3] through pixel centres, of unit depth, so that distance is depth.

    distortion: k1, k2, p1, p2, k3 as OpenCV orders them; None for a pinhole.
    """
    v, u = np.mgrid[:height, :width].astype(np.float64)
    if distortion is not None:
        pixels = np.stack([u.ravel(), v.ravel()], 1)[:, None]
        flat = cv2.undistortPoints(pixels, K, distortion)
        return np.concatenate([flat.reshape(height, width, 2), np.ones((height, width, 1))], 2)
    return np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(K).T


def look(world: World, pose: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and thing [H W] of `render` alone."""
    height, width, _ = rays.shape
    turned = torch.tensor(rays.transpose(1, 0, 2).reshape(-1, 3) @ pose[:3, :3].T).to(world.into)
    hit = cast(world, torch.tensor(pose[:3, 3]).to(world.into), turned)
    depth, thing = (part.view(width, height).T.cpu().numpy() for part in hit[:2])
    return depth, thing


def render(
    world: World, pose: np.ndarray, K: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a camera at `pose` (camera to world) with rays [H W 3] in its frame sees.

    Returns:
        image [H W 3] in [0, 1], depth [H W] in metres (inf: sky) and the thing [H W] at the middle
        of each pixel. Where a pixel or its neighbour shows more than one thing, colour is the mean
        of several rays.
    """
    height, width, _ = rays.shape
    device = world.into.device
    R, origin = (
        torch.tensor(part, dtype=torch.float32, device=device)
        for part in (pose[:3, :3], pose[:3, 3])
    )
    du, dv = R[:, 0] / K[0, 0], R[:, 1] / K[1, 1]
    # column by column, so that neighbours in the list look at the same few things
    turned = (
        torch.tensor(rays, dtype=torch.float32, device=device).transpose(0, 1).reshape(-1, 3) @ R.T
    )
    hit = cast(world, origin, turned)
    colours = shade(world, hit, turned, du, dv)
    things = hit.thing.view(width, height)
    edge = torch.zeros_like(things, dtype=torch.bool)
    for dim in (0, 1):
        differs = things.diff(dim=dim) != 0
        edge.narrow(dim, 0, differs.shape[dim]).logical_or_(differs)
        edge.narrow(dim, 1, differs.shape[dim]).logical_or_(differs)
    edge = edge.view(-1).nonzero()[:, 0]
    if len(edge):
        offsets = (torch.arange(EDGE_SAMPLES, device=device) + 0.5) / EDGE_SAMPLES - 0.5
        around = [turned[edge] + a * du + b * dv for a in offsets for b in offsets]
        samples = [shade(world, cast(world, origin, rays), rays, du, dv) for rays in around]
        colours[edge] = torch.stack(samples).mean(0)

    def picture(flat: Tensor) -> np.ndarray:
        return flat.view(width, height, *flat.shape[1:]).transpose(0, 1).cpu().numpy()

    return picture(colours), picture(hit.distance), picture(hit.thing)
