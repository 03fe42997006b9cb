"""A scene as plain data: solids with textures on rigid paths, a camera on a path, and the light.

World: right-handed, z up, metres. Camera: OpenCV (x right, y down, z forward). Time is counted in frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.lighting import Light
from ncbench.datasets.mini.primitives import Solid, Solids
from ncbench.datasets.mini.textures import Texture
from ncbench.datasets.mini.vectors import Vector

Matrix = NDArray[np.float64]
_ORIGIN: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Path3:
    """A smooth closed path: each coordinate is ``centre + amplitude * sin(2 pi frame / period + phase)``.

    It never leaves its box, however long the clip. Phases a quarter turn apart on two axes make a circle.

    Attributes:
        centre: Middle of the path, metres.
        amplitude: Half extent along each axis, metres; zeros make a fixed point.
        phase: Radians, along each axis.
        period: Frames for one round.
    """

    centre: Vector
    amplitude: Vector = _ORIGIN
    phase: Vector = _ORIGIN
    period: float = 48.0

    def at(self, frame: float) -> Vector:
        """Position at a frame, metres."""
        angle = 2.0 * math.pi * frame / self.period
        x, y, z = (
            centre + amplitude * math.sin(angle + phase)
            for centre, amplitude, phase in zip(self.centre, self.amplitude, self.phase, strict=True)
        )
        return x, y, z


@dataclass(frozen=True, slots=True)
class Body:
    """One solid with its looks and its rigid motion.

    Attributes:
        solid: Shape in its own coordinates.
        texture: Looks, in its own coordinates.
        path: Where its origin is.
        turn: Rotation at frame 0, object to world, as a rotation vector in radians.
        spin: Rotation added in each frame, about world axes, as a rotation vector in radians.
    """

    solid: Solid
    texture: Texture
    path: Path3
    turn: Vector = _ORIGIN
    spin: Vector = _ORIGIN


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera that travels along one path and looks at a point that travels along another.

    Attributes:
        position: Where it is.
        target: What it looks at.
        field_of_view: Across the width, radians.
        roll: Tilt about the line of sight, radians; positive turns the picture counter-clockwise.
    """

    position: Path3
    target: Path3
    field_of_view: float
    roll: float = 0.0

    def pose(self, frame: float) -> Matrix:
        """Camera-to-world (4, 4) at a frame, OpenCV axes, upright but for the roll."""
        position = np.array(self.position.at(frame))
        forward = np.array(self.target.at(frame)) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        pose = np.eye(4)
        pose[:3, 0] = cos * right + sin * down
        pose[:3, 1] = cos * down - sin * right
        pose[:3, 2] = forward
        pose[:3, 3] = position
        return pose

    def intrinsics(self, height: int, width: int) -> Matrix:
        """Pinhole matrix (3, 3) in pixels: square pixels, the principal point amid the picture."""
        focal = 0.5 * width / math.tan(0.5 * self.field_of_view)
        return np.array([[focal, 0.0, 0.5 * (width - 1)], [0.0, focal, 0.5 * (height - 1)], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the renderer needs; frames 0 to ``frames - 1`` can be rendered in any order.

    Attributes:
        kind: Which family of scenes it belongs to.
        bodies: The solids; the id of ``bodies[k]`` in every frame is ``k + 1``.
        camera: The camera and its path.
        light: The light.
        frames: Length of the clip.
        height: Picture's height in pixels.
        width: Picture's width in pixels.
    """

    kind: str
    bodies: tuple[Body, ...]
    camera: Camera
    light: Light
    frames: int
    height: int
    width: int

    @property
    def intrinsics(self) -> Matrix:
        """Pinhole matrix (3, 3) in pixels, the same in every frame."""
        return self.camera.intrinsics(self.height, self.width)

    def body_poses(self, frame: float) -> Matrix:
        """Object-to-world poses (N, 4, 4) of all bodies at a frame."""
        spin = Rotation.from_rotvec(np.array([body.spin for body in self.bodies]) * frame)
        turn = Rotation.from_rotvec(np.array([body.turn for body in self.bodies]))
        poses = np.tile(np.eye(4), (len(self.bodies), 1, 1))
        poses[:, :3, :3] = (spin * turn).as_matrix()
        poses[:, :3, 3] = [body.path.at(frame) for body in self.bodies]
        return poses


def pack_solids(scene: Scene, poses: Matrix) -> Solids:
    """Lay out the scene's solids as arrays for the kernels, at the (N, 4, 4) poses of one frame."""
    packed = [body.solid.packed() for body in scene.bodies]
    return Solids(
        code=np.array([code for code, _ in packed], dtype=np.int64),
        size=np.array([size for _, size in packed], dtype=np.float64),
        rotation=np.ascontiguousarray(poses[:, :3, :3]),
        position=np.ascontiguousarray(poses[:, :3, 3]),
        bound=np.array([body.solid.bound() for body in scene.bodies], dtype=np.float64),
    )
