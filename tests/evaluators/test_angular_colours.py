"""Scoring a picture's colours gives the bits that scoring its decoded normals gives."""

import cv2
import numpy as np
import pytest

from ncbench.datasets.formats.normal_maps import open_normals
from ncbench.errors import ScoreError
from ncbench.evaluators.angular import AngularState
from ncbench.evaluators.angular_colours import score_colours


def _picture(tmp_path, rng, bits):
    path = tmp_path / "a.png"
    pixels = rng.integers(0, 2**bits, (61, 97, 3)).astype(f"uint{bits}")  # more than one block, and a part of one
    pixels[:3] = 2 ** (bits - 1)
    pixels[3:5] = 0
    assert cv2.imwrite(str(path), pixels)
    return open_normals(path)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("axes", ["opencv", "dsine"])
def test_colours_score_like_the_normals_they_mean(tmp_path, bits, axes):
    rng = np.random.default_rng(bits)
    stored = _picture(tmp_path, rng, bits)
    target = rng.normal(size=(61, 97, 3)).astype(np.float32)
    mask = rng.random((61, 97)) > 0.2
    expected = AngularState.score(stored.unit(axes)[0], target, mask, (5, 30.5), 77.0)
    found = score_colours(stored.colours(axes), target, mask, (5, 30.5), 77.0)
    assert expected.invalid > 300
    assert (found.total, found.total_squared, found.count, found.invalid, found.thresholds) == (
        expected.total,
        expected.total_squared,
        expected.count,
        expected.invalid,
        expected.thresholds,
    )
    np.testing.assert_array_equal(found.histogram, expected.histogram)
    exact = np.degrees(
        2 * np.arctan2(*(np.linalg.norm(sign_apart(stored.unit(axes)[0], target, s), axis=-1) for s in (-1, 1)))
    )
    exact[~stored.unit(axes)[1]] = 77.0
    assert found.metrics()["mean"] == pytest.approx(exact[mask].mean(), abs=1e-5)


def sign_apart(a, b, sign):
    """Sum or difference of directions, in float64."""
    a, b = (
        v.astype(np.float64) / np.maximum(np.linalg.norm(v.astype(np.float64), axis=-1), 1e-300)[..., None]
        for v in (a, b)
    )
    return a + sign * b


def test_colours_of_another_size_or_without_truth_are_refused(tmp_path):
    stored = _picture(tmp_path, np.random.default_rng(0), 8)
    target, mask = np.ones((61, 97, 3), np.float32), np.ones((61, 97), bool)
    with pytest.raises(ScoreError, match="expected colours for truth"):
        score_colours(stored.colours("opencv"), target[1:], mask[1:])
    target[20, 20] = 0
    with pytest.raises(ScoreError, match="zero, NaN or infinite at 1 pixels"):
        score_colours(stored.colours("opencv"), target, mask)


def test_vectors_are_no_colours(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2, 3), np.float32))
    assert open_normals(tmp_path / "a.npy").colours("opencv") is None
