"""Mistakes that users make with files of normals, for ``test_probe.py``; plain numpy, apart from the product."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from benchmarks.probe_predictions import unit
from ncbench.evaluators.probe import Probe, ProbeOptions

TO_FILE = {
    "opencv": np.diag([1.0, 1, 1]),
    "opengl": np.diag([1.0, -1, -1]),
    "dsine": np.diag([-1.0, -1, -1]),
    "ldf": np.diag([-1.0, 1, 1]),
}


# mistakes: (files in true axes per frame, views) -> files as they come


def moved(maps, dx, dy):
    """What lay at (x, y) lies at (x + dx, y + dy)."""
    out = []
    for n in maps:
        rows, columns = np.mgrid[: n.shape[0], : n.shape[1]]
        at = [rows - dy, columns - dx]
        out.append(unit(np.stack([map_coordinates(n[..., k], at, order=1, mode="nearest") for k in range(3)], -1)))
    return out


def eight_bit_truncated(maps):
    return [np.floor((n + 1) / 2 * 255) / 255 * 2 - 1 for n in maps]


def by_sequence(views):
    names = list(dict.fromkeys(v.sequence for v in views))
    return [[k for k, v in enumerate(views) if v.sequence == name] for name in names]


def stepped(maps, views, step):
    """Frame k gets the predictions of frame k + step; at the ends the outermost ones stay."""
    out = list(maps)
    for places in by_sequence(views):
        for j, k in enumerate(places):
            out[k] = maps[places[min(max(j + step, 0), len(places) - 1)]]
    return out


def exchanged(maps, views):
    groups, out = by_sequence(views), list(maps)
    for mine, theirs in zip(groups, groups[1:] + groups[:1], strict=True):
        for a, b in zip(mine, theirs, strict=True):
            out[a] = maps[b]
    return out


@dataclass(frozen=True)
class Trial:
    """Files, how they are declared, and what is true of them."""

    files: list
    views: tuple
    declared: str
    raw: bool = True


def probe(trial, seed=0, **options):
    """Read files as the product does: axes, unit length, float32."""
    tool = Probe(ProbeOptions(axes=trial.declared, seed=seed, **options))
    back = np.linalg.inv(TO_FILE[trial.declared])
    for file, view in zip(trial.files, trial.views, strict=True):
        preds = unit(file.astype(np.float64) @ back.T).astype(np.float32)
        tool.add(preds, view, raw=file.astype(np.float32) if trial.raw else None)
    return tool.diagnose()


def without_poses(views):
    return tuple(replace(v, cam_to_world=None) for v in views)


# one trial of each mistake; every function gives the trial and tells whether a diagnosis names the mistake


def _random_reading(rng):
    """A signed permutation that no convention and no BGR order has."""
    while True:
        matrix = np.diag(rng.choice((-1.0, 1.0), 3)) @ np.eye(3)[rng.permutation(3)]
        named = [m @ b for m in TO_FILE.values() for b in (np.eye(3), np.eye(3)[::-1])]
        if not any(np.array_equal(matrix, other @ m) for m in TO_FILE.values() for other in named):
            return matrix


def _two(rng):
    names = list(TO_FILE)
    first, second = rng.permutation(4)[:2]
    return names[first], names[second]


def _in(name, maps):
    return [m @ TO_FILE[name].T for m in maps]


def _named(kind, axes):
    return lambda d: d.kind == kind and d.fatal and (d.axes == axes or axes in d.alternatives)


def _kind(kind, fatal=True):
    return lambda d: d.kind == kind and d.fatal == fatal


def axes(rng, views, maps):
    true, declared = _two(rng)
    return Trial(_in(true, maps), views, declared, rng.random() < 0.5), _named("axes", true)


def permuted(rng, views, maps):
    matrix, (declared, _) = _random_reading(rng), _two(rng)
    return Trial([m @ matrix.T for m in maps], views, declared), lambda d: d.kind == "axes" and d.axes is None


def bgr(rng, views, maps):
    name, _ = _two(rng)
    return Trial([f[..., ::-1] for f in _in(name, maps)], views, name), _named("bgr", name)


def bgr_and_axes(rng, views, maps):
    true, declared = _two(rng)
    return Trial([f[..., ::-1] for f in _in(true, maps)], views, declared), _named("bgr", true)


def colours(rng, views, maps):
    name, _ = _two(rng)
    scale = rng.choice((1.0, 255.0))
    return Trial([(f + 1) / 2 * scale for f in _in(name, maps)], views, name), _named("colours", name)


def colours_and_axes(rng, views, maps):
    true, declared = _two(rng)
    return Trial([(f + 1) / 2 for f in _in(true, maps)], views, declared), _named("colours", true)


def colours_without_lengths(rng, views, maps):
    name, _ = _two(rng)
    return Trial([(f + 1) / 2 for f in _in(name, maps)], views, name, raw=False), _kind("colours")


def decoded_twice(rng, views, maps):
    name, _ = _two(rng)
    return Trial([2 * f - 1 for f in _in(name, maps)], views, name), _named("decoded_twice", name)


def decoded_twice_without_lengths(rng, views, maps):
    name, _ = _two(rng)
    return Trial([2 * f - 1 for f in _in(name, maps)], views, name, raw=False), _named("decoded_twice", name)


def world(rng, views, maps):
    declared, _ = _two(rng)
    files = [m @ v.cam_to_world[:3, :3].T for m, v in zip(maps, views, strict=True)]
    return Trial(files, views, declared), _kind("world")


def frame_offset(rng, views, maps):
    step = int(rng.choice((-1, 1)))
    name, _ = _two(rng)
    fix = f"frame_offset: {-step} "
    return Trial(
        _in(name, stepped(maps, views, step)), views, name
    ), lambda d: d.kind == "frame_offset" and d.fatal and d.fix.startswith(fix)


def half_pixel(rng, views, maps):
    name, _ = _two(rng)
    dx, dy = [(0.5, 0.5), (-0.5, -0.5), (0.5, 0), (0, -0.5)][rng.integers(4)]
    return Trial(_in(name, moved(maps, dx, dy)), views, name), _kind("shifted", fatal=False)


def crop(rng, views, maps):
    name, _ = _two(rng)
    dx, dy = rng.choice((-1, 1), 2) * rng.integers(2, 5, 2)
    expected = f"move the maps by ({-dx:+.1f}, {-dy:+.1f})"
    return Trial(
        _in(name, moved(maps, dx, dy)), views, name
    ), lambda d: d.kind == "shifted" and d.fatal and _near(d.fix, -dx, -dy, expected)


def _near(fix, dx, dy, expected):
    found = fix.split("(")[1].split(")")[0].split(", ")
    return bool(expected) and abs(float(found[0]) - dx) <= 0.5 and abs(float(found[1]) - dy) <= 0.5


def transposed_square(rng, views, maps):
    name, _ = _two(rng)
    side = min(views[0].size)
    cut = tuple(
        replace(v, normal=v.normal[:side, :side], valid=v.valid[:side, :side], image=None, depth=None) for v in views
    )
    files = [f[:side, :side].swapaxes(0, 1) for f in _in(name, maps)]
    return Trial(files, cut, name), _kind("transposed")


def transposed_size(rng, views, maps):
    name, _ = _two(rng)
    return Trial([f.swapaxes(0, 1) for f in _in(name, maps)], views, name), _kind("transposed")


def mirrored(rng, views, maps):
    """Predicted on mirrored pictures, or only the pixels mirrored."""
    name, _ = _two(rng)
    signs = np.array([rng.choice((-1.0, 1.0)), 1, 1])
    return Trial([f[:, ::-1] for f in _in(name, [m * signs for m in maps])], views, name), _kind("mirrored")


def other_sequence(rng, views, maps):
    name, _ = _two(rng)
    return Trial(_in(name, exchanged(maps, views)), views, name), _kind("other_sequence")


def truncated(rng, views, maps):
    name, _ = _two(rng)
    files = eight_bit_truncated(_in(name, maps))
    return Trial(files, views, name, bool(rng.random() < 0.5)), _kind("truncated", fatal=False)


MISTAKES = {
    f.__name__: f
    for f in (
        axes, permuted, bgr, bgr_and_axes, colours, colours_and_axes, colours_without_lengths, decoded_twice,
        decoded_twice_without_lengths, world, frame_offset, half_pixel, crop, transposed_square, transposed_size,
        mirrored, other_sequence, truncated,
    )
}  # fmt: skip


# which trials must be diagnosed: stated in terms of all pixels of the truth, not of what the probe measures


def _errors(maps, views):
    return [angle(m, v.normal)[v.valid] for m, v in zip(maps, views, strict=True)]


def angle(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def mean_error(maps, views):
    return float(np.concatenate(_errors(maps, views)).mean())


def as_read(trial):
    back = np.linalg.inv(TO_FILE[trial.declared])
    return [unit(f.astype(np.float64) @ back.T) for f in trial.files]


def near_edges(maps, views):
    """Mean error within one pixel of a step of 15 degrees in the truth."""
    found = []
    for m, v in zip(maps, views, strict=True):
        edge = np.zeros(v.size, bool)
        for axis in (0, 1):
            step = angle(v.normal, np.roll(v.normal, -1, axis)) > 15
            edge |= step | np.roll(step, 1, axis)
        edge &= v.valid
        edge[[0, -1]] = edge[:, [0, -1]] = False
        found.append(angle(m, v.normal)[edge])
    return float(np.concatenate(found).mean())


def where_changed(maps, views):
    """Mean error where the truth differs by 10 degrees from that of the frame before or after."""
    found = []
    for places in by_sequence(views):
        for a, b in itertools.pairwise(places):
            changed = (angle(views[a].normal, views[b].normal) > 10) & views[a].valid & views[b].valid
            found += [angle(maps[k], views[k].normal)[changed] for k in (a, b)]
    return float(np.concatenate(found).mean())


def _best_axes(preds, views):
    """Least mean error that any of the 48 orders and signs reaches, on some pixels."""
    p = np.concatenate([m[v.valid][:: max(1, int(v.valid.sum()) // 300)] for m, v in zip(preds, views, strict=True)])
    t = np.concatenate([v.normal[v.valid][:: max(1, int(v.valid.sum()) // 300)] for v in views])
    turns = [
        np.diag(s) @ np.eye(3)[list(o)]
        for o in itertools.permutations(range(3))
        for s in itertools.product((1, -1), repeat=3)
    ]
    return min(float(angle(p @ q.T, t).mean()) for q in turns)


def detectable(name, trial, views, maps):
    """Whether the regime that docs/probe.md states holds: the mistake outweighs the model's own error."""
    if name in ("truncated", "transposed_size", "colours", "decoded_twice"):
        return True
    if name in ("half_pixel", "crop"):
        own, found = near_edges(maps, views), near_edges(as_read(trial), trial.views)
        return own <= 45 and own <= 0.8 * found
    if name == "frame_offset":
        own, found = where_changed(maps, views), where_changed(as_read(trial), trial.views)
        return own <= 40 and own <= 0.6 * found
    own = mean_error(maps, views)
    if name == "colours_and_axes":
        decoded = replace(trial, files=[2 * f - 1 for f in trial.files])
        return _outweighs(mean_error(as_read(decoded), trial.views), own)
    found = mean_error(as_read(trial), trial.views)
    if name == "world":
        if not _turns_away(trial):
            return False
        found = min(found, _best_axes(as_read(trial), trial.views))
    return _outweighs(found, own)


def _turns_away(trial):
    """Whether files in world axes are more than a small, steady tilt: 45 degrees, or cameras 20 degrees apart."""
    turns = Rotation.from_matrix([v.cam_to_world[:3, :3] for v in trial.views])
    declared = TO_FILE[trial.declared]
    if np.linalg.det(declared) < 0:
        return True
    away = (Rotation.from_matrix(declared) * turns).magnitude()
    apart = (turns * turns[0].inv()).magnitude()
    return np.degrees(away.min()) >= 45 or np.degrees(apart.max()) >= 20


def _outweighs(found, own):
    return own <= 0.7 * found and own <= found - 5
