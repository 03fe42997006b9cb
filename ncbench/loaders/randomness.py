"""Random numbers that depend on what they are for alone: a key in, numbers out.

No generator has a state that order, ranks or workers could disturb. The numbers are those of SplitMix64 (Steele, Lea
and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) from a key that is a hash, so that they are
the same on every machine and with every version of numpy.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ncbench.jit import jit

Words = NDArray[np.uint64]


def key_of(*parts: int | str) -> np.uint64:
    """Make a key of what the numbers are for.

    Examples:
        >>> key_of(0, "order", 1) == key_of(0, "order", 1), key_of(0, "order", 1) == key_of(0, "order", 2)
        (np.True_, np.False_)
    """
    return np.uint64(int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little"))


def words(key: np.uint64, count: int) -> Words:
    """Draw 64-bit numbers.

    Args:
        key: From ``key_of``.
        count: How many.

    Returns:
        (count,) uint64, uniform over all values.
    """
    drawn = np.empty(count, np.uint64)
    _fill(key, drawn)
    return drawn


def uniforms(key: np.uint64, count: int) -> NDArray[np.float64]:
    """Draw numbers in [0, 1), (count,) float64."""
    return (words(key, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: np.uint64, count: int) -> NDArray[np.int64]:
    """Draw an order of ``count`` things, (count,) int64."""
    return np.argsort(words(key, count), kind="stable")


@jit(inline=True)
def mixed(state: np.uint64) -> np.uint64:
    """Scramble the bits of a counter; inside compiled kernels."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@jit()
def _fill(key: np.uint64, drawn: Words) -> None:
    for index in range(drawn.shape[0]):
        drawn[index] = mixed(key + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15))
