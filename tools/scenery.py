"""Made-up places and journeys through them: a street to drive along, a room to film."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from tools.render import Road, Thing, World, make_world

EYE_M = 1.65  # height of the camera over the road
STEP_M = 0.8  # the camera's usual way from frame to frame
LANE_M = 1.7  # from the middle of the road to that of a lane
BEFORE_M, BEYOND_M = 30.0, 110.0  # how far the street goes on at its ends
Beside = Callable[[float, float], np.ndarray]  # way along the road, metres to its right: a pose


class Setting(NamedTuple):
    """What a place and journey have more or less of.

    rotation:    how much the street winds, and the camera looks round, sways, pitches and rolls;
                 1 is usual.
    moving_cars: every other one drives before the camera at its speed, the others come towards it.
    standing:    share of the time in which the camera stands.
    exposure:    by which factor brightness changes, 0.2 for about a fifth.
    textureless: share of things that are plain.
    """

    rotation: float = 1.0
    moving_cars: int = 0
    standing: float = 0.0
    exposure: float = 0.0
    textureless: float = 0.0


class Film(NamedTuple):
    """A place and what happens there, frame by frame.

    poses:  of the camera, camera to world [F 4 4].
    movers: the things that move; `places` [F n 4 4] are theirs.
    gain:   brightness [F].
    """

    world: World
    poses: np.ndarray
    movers: list[int]
    places: np.ndarray
    gain: np.ndarray

    def at(self, frame: int) -> World:
        """The world at that frame's moment."""
        return self.world.moved(self.movers, self.places[frame]) if self.movers else self.world


def place(x: float, y: float, z: float, yaw: float = 0.0) -> np.ndarray:
    """Pose [4 4] at a point, turned to the right by `yaw` radians."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", yaw).as_matrix()
    pose[:3, 3] = x, y, z
    return pose


def box(pose: np.ndarray, size: tuple, colour: Any, **looks: Any) -> Thing:
    """A box of width, height and length that stands on the point of its pose."""
    return Thing(pose @ place(0, -size[1] / 2, 0), np.array(size) / 2, np.array(colour), **looks)


def ball(pose: np.ndarray, size: tuple, colour: Any, **looks: Any) -> Thing:
    """An ellipsoid of that size around the point of its pose."""
    return Thing(pose, np.array(size) / 2, np.array(colour), is_round=True, **looks)


class Painter:
    """Colours and textures by chance."""

    def __init__(self, rng: np.random.Generator, textureless: float):
        self.rng, self.textureless = rng, textureless

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def colour(self) -> np.ndarray:
        """Anything from dull to bright."""
        grey, tint = self.between(0.25, 0.7), self.rng.normal(0, 0.06, 3)
        return np.clip(grey + tint, 0.08, 0.9)

    def texture(self, contrast: float, grain_m: float) -> dict[str, float]:
        plain = self.rng.random() < self.textureless
        return {"contrast": 0.0 if plain else contrast, "grain_m": grain_m}


# The street ---------------------------------------------------------------------------------------


def street(rng: np.random.Generator, frames: int, setting: Setting, device: torch.device) -> Film:
    """A drive in the right lane of a winding street, the camera 1.65 m high."""
    paint = Painter(rng, setting.textureless)
    way = journey(rng, frames, setting.standing)
    length = way[-1]
    road = Road(
        setting.rotation * np.array([6.0, 2.5, 0.7]) * rng.uniform(0.7, 1.2, 3),
        2 * np.pi / (np.array([150.0, 85.0, 50.0]) * rng.uniform(0.8, 1.2, 3)),
        rng.uniform(0, 2 * np.pi, 3),
    )

    def beside(z: float, across: float) -> np.ndarray:
        """Pose along the road, `across` metres to the right of its middle."""
        heading = float(road.heading(z))
        return place(road.middle(z), 0, z, heading) @ place(across, 0, 0)

    ground = Thing(
        place(0, 500, 0), np.array([3000.0, 500, 3000]), np.array([0.4, 0.4, 0.42]),
        **paint.texture(0.5, 8.0),
    )  # fmt: skip
    things = [ground]
    end = length + BEYOND_M
    for side in (-1, 1):
        things += row_of_houses(paint, beside, side, end)
        z = -BEFORE_M + paint.between(0, 10)
        while z < end:
            things += car(paint, beside(z, side * paint.between(4.4, 4.8)))
            z += paint.between(7, 22)
        for z in np.arange(-BEFORE_M + paint.between(0, 20), end, 21.0):
            things.append(box(beside(z, side * 6.0), (0.2, 6.5, 0.2), [0.3, 0.32, 0.3]))
        z = -BEFORE_M + paint.between(0, 20)
        while z < end:
            things += tree(paint, beside(z, side * paint.between(6.8, 8.2)))
            z += paint.between(9, 30)
    movers, places = [], []
    for i in range(setting.moving_cars):
        follows = i % 2 == 0
        parts = car(paint, np.eye(4))
        movers += range(len(things), len(things) + len(parts))
        things += parts
        if follows:
            along, across = way + 9.0 + 7.0 * i + paint.between(0, 3), LANE_M
        else:
            along = paint.between(20, 40 + 2 * length) - STEP_M * np.arange(frames)
            across = -LANE_M
        wheres = np.array([beside(z, across) for z in along])
        places.append(np.stack([wheres @ part.pose for part in parts], 1))
    return Film(
        make_world(rng, things, device, road),
        drive(rng, road, way, setting.rotation),
        movers,
        np.concatenate(places, 1) if places else np.zeros((frames, 0, 4, 4)),
        exposures(rng, frames, setting.exposure),
    )


def journey(rng: np.random.Generator, frames: int, standing: float) -> np.ndarray:
    """Metres that the camera has gone at each frame: now faster, now slower, or standing."""
    t = np.arange(frames)
    speed = STEP_M * (1 + 0.2 * np.sin(0.11 * t + rng.uniform(0, 2 * np.pi)))
    wave = np.sin(2 * np.pi * t / 45 + rng.uniform(0, 2 * np.pi))
    if standing > 0:  # below this height a sine is for that share of the time
        speed *= np.clip(3 * (wave + np.cos(np.pi * standing)), 0, 1)
    return np.cumsum(speed) - speed[0]


def drive(rng: np.random.Generator, road: Road, way: np.ndarray, rotation: float) -> np.ndarray:
    """Camera poses [F 4 4] in the right lane. All of it depends on the way alone, so that a camera
    that stands does not turn either."""
    phases = rng.uniform(0, 2 * np.pi, 5)

    def sway(i: int, amplitude: float, period_m: float) -> np.ndarray:
        return rotation * amplitude * np.sin(2 * np.pi * way / period_m + phases[i])

    across = LANE_M + sway(0, 0.4, 55)
    yaw = road.heading(way) + sway(1, 0.05, 31)
    turn = Rotation.from_euler("YXZ", np.stack([yaw, sway(2, 0.012, 13), sway(3, 0.012, 17)], 1))
    poses = np.tile(np.eye(4), (len(way), 1, 1))
    poses[:, :3, :3] = turn.as_matrix()
    heading = road.heading(way)
    poses[:, 0, 3] = road.middle(way) + across * np.cos(heading)
    poses[:, 1, 3] = -EYE_M + sway(4, 0.02, 9)
    poses[:, 2, 3] = way - across * np.sin(heading)
    return poses


def exposures(rng: np.random.Generator, frames: int, exposure: float) -> np.ndarray:
    """Brightness of each frame, changing within a few frames."""
    t = np.arange(frames)
    waves = sum(np.sin(2 * np.pi * t / p + rng.uniform(0, 2 * np.pi)) for p in (7, 11.3, 23.7))
    return (1 + exposure) ** waves


def row_of_houses(paint: Painter, beside: Beside, side: int, end: float) -> list[Thing]:
    """Houses along one side of the road, some wall to wall."""
    houses = []
    z = -BEFORE_M
    while z < end:
        length, height, near = paint.between(7, 15), paint.between(4, 12), paint.between(9, 13)
        near += 12 * (paint.between(0, 1) < 0.25)  # now and then a forecourt
        where = beside(z + length / 2, side * (near + 5))
        wall = paint.texture(0.45, 6.0)
        windows = (paint.between(1.8, 3.2), paint.between(2.6, 3.2))
        houses.append(box(where, (10, height, length), paint.colour(), **wall, windows=windows))
        z += length + paint.between(0, 9) * (paint.between(0, 1) < 0.6)
    return houses


def car(paint: Painter, where: np.ndarray) -> list[Thing]:
    """Body, cabin and wheels."""
    colour, length = paint.colour(), paint.between(3.6, 4.6)
    looks = paint.texture(0.4, 2.0)
    parts = [
        box(where @ place(0, -0.3, 0), (1.8, 0.65, length), colour, **looks),
        box(where @ place(0, -0.95, -0.2), (1.6, 0.55, 0.5 * length), [0.16, 0.18, 0.22], **looks),
    ]
    for x in (-0.8, 0.8):
        for z in (-0.3 * length, 0.3 * length):
            parts.append(ball(where @ place(x, -0.32, z), (0.3, 0.64, 0.64), [0.1, 0.1, 0.1]))
    return parts


def tree(paint: Painter, where: np.ndarray) -> list[Thing]:
    """Trunk and crown."""
    height, width = paint.between(3.2, 4.5), paint.between(2.4, 3.6)
    green = np.array([0.22, 0.34, 0.14]) * paint.between(0.8, 1.5)
    crown = where @ place(0, -height, 0)
    return [
        box(where, (0.35, height, 0.35), [0.3, 0.22, 0.16], **paint.texture(0.5, 1.0)),
        ball(crown, (width, width * 1.2, width), green, **paint.texture(0.7, 2.0)),
    ]


# The room -----------------------------------------------------------------------------------------


def room(rng: np.random.Generator, frames: int, setting: Setting, device: torch.device) -> Film:
    """A camera held in the hand, going about a furnished room."""
    paint = Painter(rng, setting.textureless)
    width, height, length = paint.between(4.5, 6.5), paint.between(2.5, 2.9), paint.between(5, 7)
    half = np.array([width, height, length]) / 2
    floor = [paint.between(0.35, 0.5), paint.between(0.28, 0.36), paint.between(0.2, 0.28)]
    things = []
    for axis in (1, 1, 0, 0, 2, 2):
        sign = 1 if len(things) % 2 == 0 else -1
        middle, size = np.zeros(3), 2 * half + 0.4
        middle[axis], size[axis] = sign * (half[axis] + 0.1), 0.2
        pose = place(middle[0], middle[1] - half[1], middle[2])  # the floor is y = 0
        colour = floor if not things else np.clip(0.35 + 0.7 * paint.colour(), 0, 0.85)
        things.append(Thing(pose, size / 2, np.array(colour), **paint.texture(0.4, 2.5)))
    things += furniture(paint, half)
    return Film(
        make_world(rng, things, device),
        stroll(rng, frames, half, setting),
        [],
        np.zeros((frames, 0, 4, 4)),
        exposures(rng, frames, setting.exposure),
    )


def furniture(paint: Painter, half: np.ndarray) -> list[Thing]:
    """Cupboards, shelves and a sofa at the walls, a table with chairs, lamps and boxes."""
    things = []
    for side in range(4):  # walls: right, left, ahead, behind
        away, reach = (half[0], half[2]) if side < 2 else (half[2], half[0])
        at = -reach + 0.3
        while at < reach - 1.2:
            wide, deep = paint.between(0.6, 1.6), paint.between(0.35, 0.75)
            tall = paint.between(0.4, 2.1)
            turn = (np.pi / 2, -np.pi / 2, 0, np.pi)[side]
            where = place(0, 0, 0, turn) @ place(at + wide / 2, 0, away - deep / 2)
            things.append(box(where, (wide, tall, deep), paint.colour(), **paint.texture(0.5, 1.2)))
            if tall < 1.2 and paint.between(0, 1) < 0.7:
                size = paint.between(0.2, 0.45)
                lamp = where @ place(0, -tall - size / 2, 0)
                things.append(ball(lamp, (size,) * 3, paint.colour(), **paint.texture(0.6, 0.5)))
            at += wide + paint.between(0.1, 1.0)
    middle = place(paint.between(-0.5, 0.5), 0, paint.between(-0.5, 0.5), paint.between(0, 3))
    wood, looks = paint.colour(), paint.texture(0.5, 0.8)
    things.append(box(middle @ place(0, -0.7, 0), (1.2, 0.06, 0.8), wood, **looks))
    for x in (-0.52, 0.52):
        for z in (-0.32, 0.32):
            things.append(box(middle @ place(x, 0, z), (0.07, 0.7, 0.07), wood, **looks))
        seat = middle @ place(x, 0, 0.75)
        things.append(box(seat, (0.42, 0.46, 0.42), paint.colour(), **paint.texture(0.5, 0.6)))
        back = seat @ place(0, -0.46, 0.19)
        things.append(box(back, (0.42, 0.5, 0.05), paint.colour(), **paint.texture(0.5, 0.6)))
    vase = middle @ place(paint.between(-0.3, 0.3), -0.92, 0)
    things.append(ball(vase, (0.22, 0.32, 0.22), paint.colour(), **paint.texture(0.6, 0.4)))
    return things


def stroll(rng: np.random.Generator, frames: int, half: np.ndarray, setting: Setting) -> np.ndarray:
    """Camera poses [F 4 4] on an ellipse round the room, looking across it.

    The camera moves more than it turns: turning alone shows no depth.
    """
    t = journey(rng, frames, setting.standing) * 0.03 / STEP_M  # radians of the ellipse
    phases = rng.uniform(0, 2 * np.pi, 5)
    angle = phases[0] + t * rng.choice((-1, 1))
    sway = [
        np.sin(rate * t + phase)
        for rate, phase in zip((2.3, 3.1, 4.3, 3.7), phases[1:], strict=True)
    ]
    poses = np.tile(np.eye(4), (frames, 1, 1))
    spot = np.stack([(half[0] - 1.1) * np.sin(angle), (half[2] - 1.1) * np.cos(angle)], 1)
    yaw = phases[0] + np.pi + 0.12 * setting.rotation * sway[0]
    pitch = -0.2 + 0.05 * setting.rotation * sway[1]
    roll = 0.03 * setting.rotation * sway[2]
    poses[:, :3, :3] = Rotation.from_euler("YXZ", np.stack([yaw, pitch, roll], 1)).as_matrix()
    poses[:, 0, 3], poses[:, 2, 3] = spot.T
    poses[:, 1, 3] = -1.45 + 0.1 * sway[3]
    return poses
