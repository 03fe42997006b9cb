"""Solids that a ray meets in closed form: planes, boxes, balls, capped cones and cylinders.

A solid lives in its own coordinates (metres, z up) and a rigid pose places it in the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.mini.vectors import FloatArray, Vector, along, dot, minus, rotate, rotate_back, row, unit
from ncbench.jit import jit

PLANE, BOX, BALL, FRUSTUM = 0, 1, 2, 3
NEAR = 1e-9  # a hit closer than this is the point that the ray started from


@dataclass(frozen=True, slots=True)
class Plane:
    """The rectangle |x| <= half_x, |y| <= half_y of the plane z = 0; infinite by default."""

    half_x: float = math.inf
    half_y: float = math.inf

    def packed(self) -> tuple[int, Vector]:
        """Kernel code and size."""
        return PLANE, (self.half_x, self.half_y, 0.0)

    def bound(self) -> float:
        """Radius in metres of a ball about the origin that holds the solid."""
        return math.hypot(self.half_x, self.half_y)


@dataclass(frozen=True, slots=True)
class Box:
    """The box |x| <= half_x, |y| <= half_y, |z| <= half_z."""

    half_x: float
    half_y: float
    half_z: float

    def packed(self) -> tuple[int, Vector]:
        """Kernel code and size."""
        return BOX, (self.half_x, self.half_y, self.half_z)

    def bound(self) -> float:
        """Radius in metres of a ball about the origin that holds the solid."""
        return math.hypot(self.half_x, self.half_y, self.half_z)


@dataclass(frozen=True, slots=True)
class Sphere:
    """The ball of a radius about the origin."""

    radius: float

    def packed(self) -> tuple[int, Vector]:
        """Kernel code and size."""
        return BALL, (self.radius, 0.0, 0.0)

    def bound(self) -> float:
        """Radius in metres of a ball about the origin that holds the solid."""
        return self.radius


@dataclass(frozen=True, slots=True)
class Cone:
    """A capped cone about z: radius ``base`` at z = -half_height and ``top`` (0 for a tip) at z = half_height."""

    base: float
    top: float
    half_height: float

    def packed(self) -> tuple[int, Vector]:
        """Kernel code and size."""
        return FRUSTUM, (self.base, self.top, self.half_height)

    def bound(self) -> float:
        """Radius in metres of a ball about the origin that holds the solid."""
        return math.hypot(max(self.base, self.top), self.half_height)


@dataclass(frozen=True, slots=True)
class Cylinder:
    """A capped cylinder about the z axis; to a ray it is a cone whose two radii are equal."""

    radius: float
    half_height: float

    def packed(self) -> tuple[int, Vector]:
        """Kernel code and size."""
        return FRUSTUM, (self.radius, self.radius, self.half_height)

    def bound(self) -> float:
        """Radius in metres of a ball about the origin that holds the solid."""
        return math.hypot(self.radius, self.half_height)


Solid = Plane | Box | Sphere | Cone | Cylinder


class Solids(NamedTuple):
    """N solids at one moment, packed for the kernels.

    Attributes:
        code: (N,) int64, PLANE, BOX, BALL or FRUSTUM.
        size: (N, 3) metres, see ``packed`` of each class.
        rotation: (N, 3, 3) object-to-world.
        position: (N, 3) of the object's origin in the world, metres.
        bound: (N,) radius of the bounding ball, metres; inf for an infinite plane.
    """

    code: NDArray[np.int64]
    size: FloatArray
    rotation: FloatArray
    position: FloatArray
    bound: FloatArray


@jit()
def to_object(solids: Solids, k: int, point: Vector) -> Vector:
    """Bring a world point into the coordinates of solid ``k``."""
    return rotate_back(solids.rotation, k, minus(point, row(solids.position, k)))


@jit()
def to_world(solids: Solids, k: int, point: Vector) -> Vector:
    """Bring a point from the coordinates of solid ``k`` into the world."""
    return along(row(solids.position, k), rotate(solids.rotation, k, point), 1.0)


@jit()
def roots(a: float, b: float, c: float) -> tuple[float, float]:
    """Real roots of a t^2 + 2 b t + c = 0, or (inf, inf).

    The sum that cannot cancel gives one root and the product of roots the other, so both keep full precision.
    """
    if abs(a) < 1e-14:
        return (math.inf if b == 0.0 else -0.5 * c / b, math.inf)
    discriminant = b * b - a * c
    if discriminant < 0.0:
        return (math.inf, math.inf)
    q = -(b + math.copysign(math.sqrt(discriminant), b))
    return (q / a, c / q if q != 0.0 else math.inf)


@jit()
def _plane_hit(size: Vector, o: Vector, d: Vector) -> float:
    if d[2] == 0.0:
        return math.inf
    t = -o[2] / d[2]
    inside = abs(o[0] + t * d[0]) <= size[0] and abs(o[1] + t * d[1]) <= size[1]
    return t if inside and t > NEAR else math.inf


@jit()
def _box_hit(size: Vector, o: Vector, d: Vector) -> float:
    enter, leave = -math.inf, math.inf
    for axis in range(3):
        if d[axis] == 0.0:
            if abs(o[axis]) > size[axis]:
                return math.inf
            continue
        inverse = 1.0 / d[axis]
        reach = size[axis] * abs(inverse)
        middle = -o[axis] * inverse
        enter = max(enter, middle - reach)
        leave = min(leave, middle + reach)
    if enter > leave or leave <= NEAR:
        return math.inf
    return enter if enter > NEAR else leave


@jit()
def _ball_hit(size: Vector, o: Vector, d: Vector) -> float:
    first, second = roots(dot(d, d), dot(o, d), dot(o, o) - size[0] * size[0])
    low, high = min(first, second), max(first, second)
    return low if low > NEAR else (high if high > NEAR else math.inf)


@jit()
def _frustum_hit(size: Vector, o: Vector, d: Vector) -> float:
    """Side: x^2 + y^2 = (m + k z)^2 within |z| <= h; caps: discs at z = -h and z = h."""
    base, top, h = size[0], size[1], size[2]
    m, k = 0.5 * (base + top), 0.5 * (top - base) / h
    s, ds = m + k * o[2], k * d[2]
    best = math.inf
    a = d[0] * d[0] + d[1] * d[1] - ds * ds
    b = o[0] * d[0] + o[1] * d[1] - s * ds
    for t in roots(a, b, o[0] * o[0] + o[1] * o[1] - s * s):
        if NEAR < t < best and abs(o[2] + t * d[2]) <= h:
            best = t
    if d[2] != 0.0:
        for z, radius in ((-h, base), (h, top)):
            t = (z - o[2]) / d[2]
            x, y = o[0] + t * d[0], o[1] + t * d[1]
            if NEAR < t < best and x * x + y * y <= radius * radius:
                best = t
    return best


@jit()
def solid_hit(code: int, size: Vector, o: Vector, d: Vector) -> float:
    """Distance along a ray (object coordinates, unit ``d``) to the surface of one solid, inf for a miss."""
    if code == PLANE:
        return _plane_hit(size, o, d)
    if code == BOX:
        return _box_hit(size, o, d)
    if code == BALL:
        return _ball_hit(size, o, d)
    return _frustum_hit(size, o, d)


@jit()
def _box_normal(size: Vector, p: Vector) -> Vector:
    x, y, z = abs(p[0]) - size[0], abs(p[1]) - size[1], abs(p[2]) - size[2]
    if x >= y and x >= z:
        return (math.copysign(1.0, p[0]), 0.0, 0.0)
    if y >= z:
        return (0.0, math.copysign(1.0, p[1]), 0.0)
    return (0.0, 0.0, math.copysign(1.0, p[2]))


@jit()
def _frustum_normal(size: Vector, p: Vector) -> Vector:
    h = size[2]
    slope = 0.5 * (size[1] - size[0]) / h
    slant = 1.0 / math.sqrt(1.0 + slope * slope)
    rho = math.hypot(p[0], p[1])
    side = (rho - 0.5 * (size[0] + size[1]) - slope * p[2]) * slant
    if rho == 0.0 or abs(abs(p[2]) - h) < abs(side):
        return (0.0, 0.0, math.copysign(1.0, p[2]))
    return (p[0] / rho * slant, p[1] / rho * slant, -slope * slant)


@jit()
def surface_normal(code: int, size: Vector, p: Vector) -> Vector:
    """Outward unit normal at a surface point, object coordinates. The side nearest to ``p`` decides on an edge."""
    if code == PLANE:
        return (0.0, 0.0, 1.0)
    if code == BALL:
        return unit(p)
    if code == BOX:
        return _box_normal(size, p)
    return _frustum_normal(size, p)


@jit()
def _near_ray(solids: Solids, k: int, offset: Vector, direction: Vector, far: float) -> bool:
    """Whether a ray from ``offset`` (relative to the solid's centre) meets the bounding ball before ``far``."""
    b = dot(offset, direction)
    bound = solids.bound[k]
    outside = dot(offset, offset) - bound * bound
    return outside <= 0.0 or (b <= 0.0 and b * b >= outside and -b - bound <= far)


@jit()
def _hit(solids: Solids, k: int, offset: Vector, direction: Vector) -> float:
    o = rotate_back(solids.rotation, k, offset)
    d = rotate_back(solids.rotation, k, direction)
    return solid_hit(solids.code[k], row(solids.size, k), o, d)


@jit()
def first_hit(solids: Solids, origin: Vector, direction: Vector, far: float) -> tuple[float, int]:
    """Cast one ray among all solids.

    Args:
        solids: What stands in the world.
        origin: Start, world metres.
        direction: Unit vector, world.
        far: Nothing at or beyond this distance counts.

    Returns:
        Distance in metres and index of the first solid hit; ``(far, -1)`` where there is none.
    """
    best, index = far, -1
    for k in range(solids.code.size):
        offset = minus(origin, row(solids.position, k))
        if _near_ray(solids, k, offset, direction, best):
            t = _hit(solids, k, offset, direction)
            if t < best:
                best, index = t, k
    return best, index


@jit()
def blocked(solids: Solids, origin: Vector, direction: Vector, far: float) -> bool:
    """Whether any solid stands on a ray before ``far``; the arguments are those of ``first_hit``."""
    for k in range(solids.code.size):
        offset = minus(origin, row(solids.position, k))
        if _near_ray(solids, k, offset, direction, far) and _hit(solids, k, offset, direction) < far:
            return True
    return False
