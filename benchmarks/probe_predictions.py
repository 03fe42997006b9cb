"""Predictions that are honest or mistaken in a known way, for ``test_probe.py``.

Everything here is made from exact truth by plain numpy, apart from the code under test.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.evaluators.view import View
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.plane_fit import normals_by_plane_fit

FRONTAL = np.array([0.0, 0.0, -1.0])
KINDS = ("room", "outdoor", "objects")


@functools.lru_cache(maxsize=512)
def clip(kind, seed, frames=6, height=96, width=128):
    scene = make_scene(kind, seed, frames, height, width)
    views = []
    for index in range(frames):
        f = render_frame(scene, index)
        views.append(
            View(
                f"{kind}-{seed}",
                index,
                f.normal.astype(np.float32),
                f.valid,
                image=f.rgb,
                depth=f.depth.astype(np.float32),
                intrinsics=f.intrinsics,
                cam_to_world=f.cam_to_world,
            )
        )
    return tuple(views)


def unit(v):
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.where(length > 1e-9, v / np.maximum(length, 1e-9), FRONTAL)


def filled(view):
    return np.where(view.valid[..., None], view.normal, FRONTAL).astype(np.float64)


def turned(normals, field):
    """Rotate each normal by the rotation vector (radians) of its pixel."""
    return Rotation.from_rotvec(field.reshape(-1, 3)).apply(normals.reshape(-1, 3)).reshape(normals.shape)


def smooth_fields(rng, views, degrees, coarse=6.0, flicker=0.3):
    """Smooth rotation vectors, mostly the same in all frames, whose effect is ``degrees`` on average."""
    h, w = views[0].size
    sigma = (h / coarse, h / coarse, 0)
    steady = gaussian_filter(rng.normal(size=(h, w, 3)), sigma, mode="wrap")
    steady /= steady.std()
    fields = []
    for _ in views:
        own = gaussian_filter(rng.normal(size=(h, w, 3)), sigma, mode="wrap")
        fields.append(np.sqrt(1 - flicker**2) * steady + flicker * own / own.std())
    # a rotation vector of three unit components turns a normal by 1.25 on average
    return [field * np.radians(degrees) / 1.25 for field in fields]


def noisy(views, rng, level):
    """Truth under smooth correlated noise."""
    return [turned(filled(v), f) for v, f in zip(views, smooth_fields(rng, views, level), strict=True)]


def blurred(views, rng, level):
    """Truth blurred, and under noise; more of both with the level."""
    sigma = (0.3 + level / 12 * views[0].size[0] / 48,) * 2 + (0,)
    maps = [unit(gaussian_filter(filled(v), sigma)) for v in views]
    return [turned(m, f) for m, f in zip(maps, smooth_fields(rng, views, 0.7 * level), strict=True)]


def from_depth(views, rng, level):
    """Normals fitted to the true depth, under noise."""
    maps = []
    for v in views:
        if v.depth is None:
            maps.append(filled(v))
            continue
        normal, valid = normals_by_plane_fit(v.depth, pinhole_rays(v.intrinsics, *v.size), 3, 0.03)
        maps.append(np.where(valid[..., None], normal, FRONTAL).astype(np.float64))
    return [turned(m, f) for m, f in zip(maps, smooth_fields(rng, views, level), strict=True)]


CONTROLS = {"noise": noisy, "blur": blurred, "depth": from_depth}


# honest predictions that are bad in their own ways


def frontal_bias(views, rng, level):
    share = rng.uniform(0.2, 0.7)
    return [unit((1 - share) * n + share * FRONTAL) for n in noisy(views, rng, level)]


def mean_bias(views, rng, level):
    """Drawn towards the mean of the truth."""
    share = rng.uniform(0.2, 0.7)
    mean = unit(np.mean([filled(v).mean((0, 1)) for v in views], 0))
    return [unit((1 - share) * n + share * mean) for n in noisy(views, rng, level)]


def flicker(views, rng, level):
    turns = [Rotation.from_rotvec(np.radians(level) * unit(rng.normal(size=3))) for _ in views]
    return [turned_by(filled(v), r) for v, r in zip(views, turns, strict=True)]


def tilt(views, rng, level):
    turn = Rotation.from_rotvec(np.radians(level) * unit(rng.normal(size=3)))
    return [turned_by(filled(v), turn) for v in views]


def turned_by(normals, rotation):
    return normals @ rotation.as_matrix().T


def frontal(views, _rng, _level):
    return [np.broadcast_to(FRONTAL, (*v.size, 3)) for v in views]


def constant(views, rng, _level):
    direction = unit(FRONTAL + rng.normal(size=3) * 0.7)
    return [np.broadcast_to(direction, (*v.size, 3)) for v in views]


def frozen(views, rng, level):
    first = noisy(views, rng, level)
    names = [v.sequence for v in views]
    return [first[names.index(name)] for name in names]


def lagging(views, rng, level):
    """An average over the past."""
    alpha, state, out = rng.uniform(0.3, 0.8), None, []
    for k, n in enumerate(noisy(views, rng, level)):
        fresh = k == 0 or views[k].sequence != views[k - 1].sequence
        state = n if fresh or state is None else (1 - alpha) * state + alpha * n
        out.append(unit(state))
    return out


def keyframes(views, rng, level):
    """Predicts every other or every third frame, and repeats it."""
    step, maps = int(rng.integers(2, 4)), noisy(views, rng, level)
    return [maps[k - views[k].frame % step if k >= views[k].frame % step else k] for k in range(len(views))]


def useless(views, rng, _level):
    """Smooth noise around the frontal direction, without any relation to the truth."""
    fields = smooth_fields(rng, views, 40.0, coarse=rng.uniform(2, 8))
    return [turned(np.broadcast_to(FRONTAL, (*v.size, 3)).copy(), f) for v, f in zip(views, fields, strict=True)]


def eight_bit(views, rng, level):
    return [np.rint((n + 1) / 2 * 255) / 255 * 2 - 1 for n in noisy(views, rng, level)]


def half_resolution(views, rng, level):
    """Averages over blocks of two by two, as a network of half the resolution would answer."""
    out = []
    for n in noisy(views, rng, level):
        small = n[: n.shape[0] // 2 * 2, : n.shape[1] // 2 * 2]
        small = unit(small.reshape(small.shape[0] // 2, 2, small.shape[1] // 2, 2, 3).mean((1, 3)))
        big = np.repeat(np.repeat(small, 2, 0), 2, 1)
        pad = [(0, n.shape[0] - big.shape[0]), (0, n.shape[1] - big.shape[1]), (0, 0)]
        out.append(np.pad(big, pad, mode="edge"))
    return out


HONEST = CONTROLS | {
    f.__name__: f
    for f in (
        frontal_bias, mean_bias, flicker, tilt, frontal, constant, frozen, lagging, keyframes, useless, eight_bit,
        half_resolution,
    )
}  # fmt: skip


def random_views(rng, seeds, frames=6):
    """One or two clips of random kinds; two where sequences are to be exchanged."""
    picked = rng.integers(0, seeds, 2)
    if picked[0] == picked[1]:
        picked[1] = (picked[1] + 1) % seeds
    return tuple(view for seed in picked for view in clip(KINDS[rng.integers(3)], int(seed), frames))
