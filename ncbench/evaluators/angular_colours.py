"""Angular errors of normals that are still the colours of a picture, block by block.

Vectors of a block stay in the nearest cache and never reach memory, and angles need no unit length: both together save
a fifth of the time from a decoded picture to its statistics (benchmarks/test_angular.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncbench.evaluators.angular_kernel import BLOCK, add_block
from ncbench.jit import jit


@jit()
def add_colours(
    colours: NDArray[np.unsignedinteger],
    allowed: NDArray[np.uint8],
    marks: NDArray[np.unsignedinteger],
    min_norm: float,
    factors: NDArray[np.float64],
    target: NDArray[np.float32],
    mask: NDArray[np.uint8],
    charge: int,
    histogram: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    """Add the errors of the pixels inside a mask to a histogram and sums, as ``angular_kernel.add_vectors`` does.

    Args:
        colours: (3 N,) uint8 or uint16, red, green, blue, red, ...
        allowed: (N,) 0 or 1; 0 where there is no answer.
        marks: (K, 3) colours that mean "no answer", of the same dtype.
        min_norm: A shorter vector is no answer.
        factors: (2, 3) of each component: colour c means the float32 nearest to c * factors[0] + factors[1].
        target: (3 N,) float32.
        mask: (N,) 0 or 1.
        charge: Error where there is no answer, in units.
        histogram: (BINS,) int64, added to.
        sums: (SUMS,) int64, added to.
    """
    squares, cosines = np.empty(BLOCK), np.empty(BLOCK)
    units, edges = np.empty(BLOCK, np.int32), np.empty(BLOCK + 1, np.int32)
    vectors, missing = np.empty(3 * BLOCK, np.float32), np.empty(BLOCK, np.uint8)
    scale, offset = np.empty(3 * BLOCK), np.empty(3 * BLOCK)
    for i in range(3 * BLOCK):
        scale[i], offset[i] = factors[0, i % 3], factors[1, i % 3]
    least = min_norm * min_norm
    for start in range(0, len(mask), BLOCK):
        stop = min(start + BLOCK, len(mask))
        pixels, a = colours[3 * start : 3 * stop], vectors[: 3 * (stop - start)]
        b, inside, none = target[3 * start : 3 * stop], mask[start:stop], missing[: stop - start]
        _decode(pixels, scale, offset, a)
        if _find_missing(pixels, a, allowed[start:stop], marks, least, none):
            _blank(none, a)
        add_block(a, b, inside, charge, squares, cosines, units, edges, histogram, sums)


# loops of their own: the compiler turns each into vector instructions, and none of them together


@jit()
def _decode(
    colours: NDArray[np.unsignedinteger],
    scale: NDArray[np.float64],
    offset: NDArray[np.float64],
    vectors: NDArray[np.float32],
) -> None:
    for i in range(len(colours)):
        vectors[i] = np.float64(np.int32(colours[i])) * scale[i] + offset[i]


@jit()
def _find_missing(
    colours: NDArray[np.unsignedinteger],
    vectors: NDArray[np.float32],
    allowed: NDArray[np.uint8],
    marks: NDArray[np.unsignedinteger],
    least: float,
    missing: NDArray[np.uint8],
) -> int:
    """Flag pixels without an answer; returns how many there are."""
    for i in range(len(missing)):
        x, y, z = np.float64(vectors[3 * i]), np.float64(vectors[3 * i + 1]), np.float64(vectors[3 * i + 2])
        missing[i] = (x * x + y * y + z * z < least) | (allowed[i] == 0)
    for k in range(len(marks)):
        red, green, blue = marks[k, 0], marks[k, 1], marks[k, 2]
        for i in range(len(missing)):
            missing[i] |= (colours[3 * i] == red) & (colours[3 * i + 1] == green) & (colours[3 * i + 2] == blue)
    count = 0
    for i in range(len(missing)):
        count += missing[i]
    return count


@jit()
def _blank(missing: NDArray[np.uint8], vectors: NDArray[np.float32]) -> None:
    for i in range(len(missing)):
        if missing[i]:
            vectors[3 * i : 3 * i + 3] = 0
