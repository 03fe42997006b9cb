"""Scores of pictures that are never decoded to memory, against float64 numpy and against the decoded vectors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ncbench.datasets.formats.normal_maps import InvalidRule, open_normals
from ncbench.errors import CardError, ScoreError
from ncbench.evaluators.angular import AngularState
from ncbench.geometry.encoding import ColourMap

SIGNS = {"opencv": (1, 1, 1), "opengl": (1, -1, -1), "dsine": (-1, -1, -1), "ldf": (-1, 1, 1)}


@st.composite
def pictures(draw):
    """Colours of any kind, some of them marks and some grey, with holes; the truth and its mask."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    shape = draw(st.sampled_from([(1, 1), (5, 9), (47, 53)]))
    most = np.iinfo(dtype).max
    pixels = rng.integers(0, most + 1, (*shape, 3), dtype=dtype)
    marks = rng.integers(0, most + 1, (draw(st.integers(0, 3)), 3), dtype=dtype)
    for mark in marks:
        pixels[rng.random(shape) < 0.1] = mark
    pixels[rng.random(shape) < draw(st.sampled_from([0, 0.2]))] = most // 2 + rng.integers(0, 2)
    allowed = rng.random(shape) < draw(st.sampled_from([0.5, 1]))
    mask = rng.random(shape) < draw(st.sampled_from([0, 0.7, 1]))
    target = rng.normal(size=(*shape, 3)).astype(np.float32)
    target[~mask & (rng.random(shape) < 0.5)] = np.nan
    signs = draw(st.sampled_from(list(SIGNS.values())))
    return ColourMap(pixels, allowed, marks, draw(st.sampled_from([0.0, 0.5, 1.2])), signs), target, mask


def reference(preds, target, mask):
    """Errors in float64, NaN where there is no answer, of the pixels inside the mask."""
    vectors = preds.pixels.astype(np.float64) / np.iinfo(preds.pixels.dtype).max * 2 - 1
    answered = preds.allowed & (np.linalg.norm(vectors, axis=-1) >= preds.min_norm)
    for mark in preds.marks:
        answered &= (preds.pixels != mark).any(-1)
    a, b = (vectors * preds.signs)[mask], target[mask].astype(np.float64)
    errors = np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
    return np.where(answered[mask], errors, np.nan)


@given(pictures(), st.sampled_from([90.0, 7.5]))
@settings(max_examples=120, deadline=None)
def test_scores_agree_with_numpy(made, charge):
    preds, target, mask = made
    state = AngularState.score_colours(preds, target, mask, (11.25, 30.0), charge)
    errors = reference(preds, target, mask)
    bad = np.isnan(errors)
    assert (state.count, state.invalid) == (mask.sum(), bad.sum())
    assert state.histogram.sum() == state.count
    if not mask.any():
        assert state.metrics() == {}
        return
    errors = np.where(bad, charge, errors)
    metrics = state.metrics()
    # colours become float32, which is off by under 4e-6 degrees; short vectors are off by more in angle
    slack = 1e-4
    assert metrics["mean"] == pytest.approx(errors.mean(), abs=slack)
    assert metrics["rmse"] == pytest.approx(math.sqrt((errors**2).mean()), abs=slack)
    for name, edge in (("within_11_25", 11.25), ("within_30", 30.0)):
        low, high = (100 * np.mean(errors < edge + by) for by in (-slack, slack))
        assert low - 1e-9 <= metrics[name] <= high + 1e-9


@pytest.mark.parametrize("axes", SIGNS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "16"])
def test_a_picture_scores_like_its_decoded_vectors(tmp_path, mode, axes):
    rng = np.random.default_rng(5)
    normal = rng.normal(size=(61, 83, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    pixels = np.round((normal + 1) * 127.5).astype(np.uint8)
    pixels[:9], pixels[9:12] = 0, 128  # what open_normals takes for "none"
    path = tmp_path / "a.png"
    if mode == "16":
        import cv2

        cv2.imwrite(str(path), (pixels.astype(np.uint16) * 257)[..., ::-1])
    else:
        shown = Image.fromarray(pixels)
        if mode == "RGBA":
            shown.putalpha(Image.fromarray((rng.random((61, 83)) < 0.8).astype(np.uint8) * 255))
        shown.save(path)
    stored = open_normals(path)
    target, mask = rng.normal(size=(61, 83, 3)).astype(np.float32), rng.random((61, 83)) < 0.9
    direct = AngularState.score_colours(stored.colours(axes), target, mask)
    decoded = AngularState.score(stored.unit(axes)[0], target, mask)
    assert (direct.count, direct.invalid) == (decoded.count, decoded.invalid)
    assert direct.invalid > mask[:9].sum()
    for name, value in decoded.metrics().items():
        assert direct.metrics()[name] == pytest.approx(value, abs=1e-3 if name == "median" else 1e-5), name


def test_files_of_vectors_have_no_colours_and_unknown_axes_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2, 3), np.float32))
    assert open_normals(tmp_path / "a.npy").colours("opencv") is None
    Image.fromarray(np.full((2, 2, 3), 200, np.uint8)).save(tmp_path / "a.png")
    stored = open_normals(tmp_path / "a.png", invalid=InvalidRule(colours=((200, 200, 200),)))
    with pytest.raises(CardError, match="nowhere"):
        stored.colours("nowhere")
    truth = np.ones((2, 2, 3), np.float32)
    assert AngularState.score_colours(stored.colours("opencv"), truth).invalid == 4
    with pytest.raises(ScoreError, match="shape"):
        AngularState.score_colours(stored.colours("opencv"), truth[:1])
    truth[0, 0] = 0
    with pytest.raises(ScoreError, match="truth"):
        AngularState.score_colours(stored.colours("opencv"), truth)


def test_pixels_of_every_block_count():
    for count in (2047, 2048, 2049, 5000):
        pixels = np.tile(np.array([128, 127, 0], np.uint8), (1, count, 1))
        pixels[0, -1] = (128, 0, 127)
        preds = ColourMap(pixels, np.ones((1, count), bool), np.zeros((0, 3), np.uint8), 0.5, (1.0, 1.0, 1.0))
        state = AngularState.score_colours(preds, np.tile(np.float32([0, 0, -1]), (1, count, 1)))
        assert state.count == count
        assert (state.histogram[:1000].sum(), state.histogram[89_000:91_000].sum()) == (count - 1, 1)
