"""Angular errors of many pixels in one pass: from vectors straight to a histogram and integer sums.

Pixels are taken in blocks that stay in the nearest cache, so that each step is a plain loop over an array, which the
compiler turns into vector instructions. Arithmetic is float64 throughout: products of float32 components are then
exact, and no length that float32 can hold over- or underflows. Fused multiply-add and reordering stay off, so that
every processor computes the same bits.

Errors become whole numbers of 1/1,024,000 degree (``UNITS``). Sums of those are exact, so they do not depend on the
order in which pixels, frames or processes are added. A bin of the histogram is 1,024 units. The polynomial is off by
less than a hundredth of a unit, so it can put an error on the wrong side of a bin's edge only where the rounded error
falls on that edge; the bin of such pixels, about one in a thousand, is decided by ``atan2``.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit

BINS_PER_DEGREE: Final = 1000
BINS: Final = 180 * BINS_PER_DEGREE + 1
SHIFT: Final = 10
UNITS: Final = BINS_PER_DEGREE << SHIFT
BLOCK: Final = 2048

# places in the array of sums; a sum of squares can need more than 64 bits, so it is kept in two parts
TOTAL, SQUARES_HIGH, SQUARES_LOW, COUNT, INVALID, BAD_TARGET, SUMS = range(7)
LOW_BITS: Final = 32

_IN_BIN = (1 << SHIFT) - 1
_LOW_MASK = (1 << LOW_BITS) - 1
_RUN = 256  # squares of 256 errors of 180 degrees fit a signed 64-bit sum, those of 512 do not
_SMALLEST, _LARGEST = 1e-200, 1e200  # of (|a| |b|)^2; beyond, vectors are scaled first

# atan(t) = t P(t^2) for |t| <= tan(22.5 degrees), here in units: minimax fit, at most 7e-9 degrees off
_TAN = math.tan(math.pi / 8)
_P0 = 0.999999996271 * math.degrees(UNITS)
_P1 = -0.333332711055 * math.degrees(UNITS)
_P2 = 0.199970231201 * math.degrees(UNITS)
_P3 = -0.142241604773 * math.degrees(UNITS)
_P4 = 0.104805942404 * math.degrees(UNITS)
_P5 = -0.0583778703404 * math.degrees(UNITS)
_EIGHTH, _RIGHT, _STRAIGHT = 45.0 * UNITS, 90.0 * UNITS, 180.0 * UNITS


@jit()
def angle(ax: float, ay: float, az: float, bx: float, by: float, bz: float) -> float:
    """Measure the angle between two vectors in degrees; NaN where either has no direction (zero, NaN, infinite)."""
    cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    square, cosine = cx * cx + cy * cy + cz * cz, ax * bx + ay * by + az * bz
    if _SMALLEST < square + cosine * cosine < _LARGEST:
        return math.degrees(math.atan2(math.sqrt(square), cosine))
    if not (has_direction(ax, ay, az) and has_direction(bx, by, bz)):
        return math.nan
    # powers of two change lengths without rounding
    power_a = math.frexp(max(abs(ax), abs(ay), abs(az)))[1]
    power_b = math.frexp(max(abs(bx), abs(by), abs(bz)))[1]
    ax, ay, az = math.ldexp(ax, -power_a), math.ldexp(ay, -power_a), math.ldexp(az, -power_a)
    bx, by, bz = math.ldexp(bx, -power_b), math.ldexp(by, -power_b), math.ldexp(bz, -power_b)
    cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return math.degrees(math.atan2(math.sqrt(cx * cx + cy * cy + cz * cz), ax * bx + ay * by + az * bz))


@jit()
def has_direction(x: float, y: float, z: float) -> bool:
    """Say whether a vector is neither zero nor NaN nor infinite."""
    return 0.0 < max(abs(x), abs(y), abs(z)) < math.inf and not math.isnan(x + y + z)


@jit()
def to_units(degrees: float) -> int:
    """Round an error to whole units without crossing the edge of a bin: ``edge / 1000`` itself is in the upper bin."""
    units = int(degrees * UNITS + 0.5)
    on_edge = units & _IN_BIN == 0
    return units - 1 if on_edge and degrees < (units >> SHIFT) / BINS_PER_DEGREE else units


@jit()
def angles(preds: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure the angles between the rows of two (N, 3) arrays, in degrees."""
    out = np.empty(len(preds))
    for i in range(len(preds)):
        a, b = preds[i], target[i]
        out[i] = angle(a[0], a[1], a[2], b[0], b[1], b[2])
    return out


@jit()
def add_vectors(
    preds: NDArray[np.floating],
    target: NDArray[np.floating],
    mask: NDArray[np.uint8],
    charge: int,
    histogram: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    """Add the errors of the pixels inside a mask to a histogram and sums.

    Args:
        preds: (3 N,) float32 or float64, components of vectors one after the other.
        target: (3 N,), of the same dtype.
        mask: (N,) 0 or 1.
        charge: Error of a prediction of no direction, in units.
        histogram: (BINS,) int64, added to.
        sums: (SUMS,) int64, added to; of ``BAD_TARGET`` pixels nothing else is counted.
    """
    squares, cosines = np.empty(BLOCK), np.empty(BLOCK)
    units, edges = np.empty(BLOCK, np.int32), np.empty(BLOCK + 1, np.int32)
    for start in range(0, len(mask), BLOCK):
        stop = min(start + BLOCK, len(mask))
        a, b, inside = preds[3 * start : 3 * stop], target[3 * start : 3 * stop], mask[start:stop]
        add_block(a, b, inside, charge, squares, cosines, units, edges, histogram, sums)


@jit()
def add_block(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    inside: NDArray[np.uint8],
    charge: int,
    squares: NDArray[np.float64],
    cosines: NDArray[np.float64],
    units: NDArray[np.int32],
    edges: NDArray[np.int32],
    histogram: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    """Do what ``add_vectors`` does with up to ``BLOCK`` pixels; the arrays after ``charge`` are room to work in."""
    _multiply(a, b, squares, cosines)
    if _measure(squares, cosines, inside, units):
        _repair(a, b, inside, charge, units, sums)
    found = _count(units, inside, histogram, edges)
    _settle(a, b, edges[:found], units, histogram)
    _sum(units[: len(inside)], inside, sums)


@jit()
def _multiply(
    a: NDArray[np.floating], b: NDArray[np.floating], squares: NDArray[np.float64], cosines: NDArray[np.float64]
) -> None:
    """Square of the cross product's length, and dot product."""
    for i in range(len(a) // 3):
        ax, ay, az = np.float64(a[3 * i]), np.float64(a[3 * i + 1]), np.float64(a[3 * i + 2])
        bx, by, bz = np.float64(b[3 * i]), np.float64(b[3 * i + 1]), np.float64(b[3 * i + 2])
        cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        squares[i] = cx * cx + cy * cy + cz * cz
        cosines[i] = ax * bx + ay * by + az * bz


@jit()
def _measure(
    squares: NDArray[np.float64], cosines: NDArray[np.float64], inside: NDArray[np.uint8], units: NDArray[np.int32]
) -> int:
    """Errors in units, 0 outside the mask; returns how many inside it need the careful path, which are 0 too."""
    careful = 0
    for i in range(len(inside)):
        square, cosine = squares[i], cosines[i]
        length = square + cosine * cosine
        plain = (length > _SMALLEST) & (length < _LARGEST)
        y, x = math.sqrt(square), abs(cosine)
        low, high = min(x, y), max(x, y)
        far = low > _TAN * high  # then atan(low / high) = 45 degrees - atan((high - low) / (high + low))
        t = (low - high if far else low) / (low + high if far else high)
        z = t * t
        error = t * (_P0 + z * (_P1 + z * (_P2 + z * (_P3 + z * (_P4 + z * _P5)))))
        error += _EIGHTH if far else 0.0
        error = _RIGHT - error if y > x else error
        error = _STRAIGHT - error if cosine < 0 else error
        kept = plain & (inside[i] != 0)
        units[i] = np.int32((error if kept else 0.0) + 0.5)
        careful += inside[i] & np.uint8(not plain)
    return careful


@jit()
def _repair(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    inside: NDArray[np.uint8],
    charge: int,
    units: NDArray[np.int32],
    sums: NDArray[np.int64],
) -> None:
    """Errors of vectors of no direction, and of lengths that only scaling can handle."""
    for i in range(len(inside)):
        if inside[i] and units[i] == 0:
            ax, ay, az = np.float64(a[3 * i]), np.float64(a[3 * i + 1]), np.float64(a[3 * i + 2])
            bx, by, bz = np.float64(b[3 * i]), np.float64(b[3 * i + 1]), np.float64(b[3 * i + 2])
            if not has_direction(bx, by, bz):
                sums[BAD_TARGET] += 1
            elif not has_direction(ax, ay, az):
                sums[INVALID] += 1
                units[i] = charge
            else:
                units[i] = to_units(angle(ax, ay, az, bx, by, bz))


@jit()
def _count(
    units: NDArray[np.int32], inside: NDArray[np.uint8], histogram: NDArray[np.int64], edges: NDArray[np.int32]
) -> int:
    """Fill the histogram and list the pixels on the edge of a bin; returns the list's length."""
    found = 0
    for i in range(len(inside)):
        error = units[i]
        histogram[np.uint32(error) >> SHIFT] += inside[i]
        if error & _IN_BIN < inside[i]:  # one test for "on an edge and inside": a mask is hard to predict
            edges[found] = i
            found += error > 0
    return found


@jit()
def _settle(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    edges: NDArray[np.int32],
    units: NDArray[np.int32],
    histogram: NDArray[np.int64],
) -> None:
    """Move errors that were rounded up to the edge of a bin to the bin below, where ``atan2`` puts them."""
    for i in edges:
        place = units[i] >> SHIFT
        if _angle_at(a, b, i) < place / BINS_PER_DEGREE:  # not where the prediction has no direction: NaN
            histogram[place] -= 1
            histogram[place - 1] += 1


@jit()
def _angle_at(a: NDArray[np.floating], b: NDArray[np.floating], i: int) -> float:
    ax, ay, az = np.float64(a[3 * i]), np.float64(a[3 * i + 1]), np.float64(a[3 * i + 2])
    bx, by, bz = np.float64(b[3 * i]), np.float64(b[3 * i + 1]), np.float64(b[3 * i + 2])
    return angle(ax, ay, az, bx, by, bz)


@jit()
def _sum(units: NDArray[np.int32], inside: NDArray[np.uint8], sums: NDArray[np.int64]) -> None:
    """Exact sums of errors and of their squares, and the number of pixels."""
    for start in range(0, len(inside), _RUN):
        _sum_run(units[start : start + _RUN], inside[start : start + _RUN], sums)


@jit()
def _sum_run(units: NDArray[np.int32], inside: NDArray[np.uint8], sums: NDArray[np.int64]) -> None:
    total, squares, count = 0, 0, 0
    for i in range(len(units)):
        error = int(units[i])
        total += error
        squares += error * error
        count += inside[i]
    sums[TOTAL] += total
    sums[SQUARES_HIGH] += squares >> LOW_BITS
    sums[SQUARES_LOW] += squares & _LOW_MASK
    sums[COUNT] += count


@jit()
def add_errors(errors: NDArray[np.float64], charge: int, histogram: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
    """Add errors in degrees, of which NaN means a prediction of no direction."""
    units, inside = np.empty(_RUN, np.int32), np.ones(_RUN, np.uint8)
    for start in range(0, len(errors), _RUN):
        stop = min(start + _RUN, len(errors))
        for i in range(start, stop):
            bad = math.isnan(errors[i])
            units[i - start] = charge if bad else to_units(errors[i])
            sums[INVALID] += bad
            histogram[units[i - start] >> SHIFT] += 1
        _sum(units[: stop - start], inside, sums)


@jit()
def coarsen(histogram: NDArray[np.int64], coarse: NDArray[np.uint32]) -> None:
    """Put as many bins of a histogram together as fit ``coarse``; the last coarse bin may hold fewer."""
    factor = -(-len(histogram) // len(coarse))
    for k in range(len(coarse)):
        total = 0
        for i in range(k * factor, min((k + 1) * factor, len(histogram))):
            total += histogram[i]
        coarse[k] = total


@jit()
def bin_of_rank(histogram: NDArray[np.int64], rank: int) -> int:
    """Find the bin that holds the ``rank``-th smallest error, counted from 1."""
    seen = 0
    for place in range(len(histogram)):
        seen += histogram[place]
        if seen >= rank:
            return place
    return len(histogram)
