"""Crop and resolution: against slicing, and against cameras and planes in closed form."""

import numpy as np
import pytest

from ncbench.errors import ScoreError
from ncbench.evaluators.framing import crop_view, frame_prediction, frame_view, resize_prediction
from ncbench.evaluators.view import View
from ncbench.protocol_card import Crop, ProtocolCard

PLAIN = {"name": "p", "version": "1.0.0", "title": "P", "summary": "", "dataset": "d"}


def protocol(**values):
    return ProtocolCard.parse(PLAIN | values, "p")


def make_view(height=12, width=16, seed=0):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(height, width, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return View(
        sequence="s",
        frame=3,
        normal=normal,
        valid=np.ones((height, width), bool),
        image=rng.integers(0, 255, (height, width, 3), np.uint8),
        depth=rng.uniform(1, 3, (height, width)).astype(np.float32),
        flow=rng.normal(size=(height, width, 2)).astype(np.float32),
        flow_to=4,
        occluded=rng.random((height, width)) > 0.5,
        intrinsics=np.array([[20.0, 0, 7.5], [0, 20, 5.5], [0, 0, 1]]),
        cam_to_world=np.eye(4),
        extra={"planes": rng.integers(0, 3, (height, width)), "camera": "left"},
    )


def test_a_crop_is_a_slice_and_a_point_keeps_its_ray():
    view = make_view()
    small = crop_view(view, Crop(top=1, bottom=2, left=3, right=4))
    for name in ("normal", "valid", "image", "depth", "flow", "occluded"):
        np.testing.assert_array_equal(getattr(small, name), getattr(view, name)[1:10, 3:12])
    np.testing.assert_array_equal(small.extra["planes"], view.extra["planes"][1:10, 3:12])
    assert small.extra["camera"] == "left"
    # pixel (5, 4) of the whole is pixel (2, 3) of the crop: the same ray of light
    whole = np.linalg.solve(view.intrinsics, [5, 4, 1])
    np.testing.assert_allclose(np.linalg.solve(small.intrinsics, [2, 3, 1]), whole)


def test_a_crop_that_leaves_nothing_is_refused():
    with pytest.raises(ScoreError, match="12x16 is all cropped"):
        crop_view(make_view(), Crop(top=6, bottom=6))


def test_predictions_follow_the_truth():
    view, rules = make_view(), protocol(crop={"left": 2, "bottom": 3})
    preds = make_view(seed=1).normal
    np.testing.assert_array_equal(frame_prediction(preds, view, rules), preds[:9, 2:])
    assert frame_view(view, rules).size == (9, 14)


def test_another_size_is_refused_unless_the_protocol_resizes():
    view, preds = make_view(), make_view(6, 8, seed=2).normal
    with pytest.raises(ScoreError, match=r"prediction is 6x8, truth is 12x16 .*Predict at input size"):
        frame_prediction(preds, view, protocol())
    resized = frame_prediction(preds, view, protocol(resize="bilinear"))
    assert resized.shape == (12, 16, 3)
    np.testing.assert_allclose(np.linalg.norm(resized, axis=-1), 1, atol=1e-6)


def test_a_prediction_at_the_protocols_resolution_is_left_alone():
    view, rules = make_view(), protocol(resolution={"height": 6, "width": 8})
    preds = make_view(6, 8, seed=2).normal
    np.testing.assert_array_equal(frame_prediction(preds, view, rules), preds)
    assert frame_view(view, rules).size == (6, 8)
    np.testing.assert_allclose(frame_view(view, rules).intrinsics[:2, 2], [3.5, 2.5])


def test_a_linear_ramp_survives_a_resize_in_place():
    """Depth a + b x + c y stays that function of the scene: x' = (x + 0.5) s - 0.5."""
    rows, columns = np.mgrid[:40, :60].astype(np.float32)
    ramp = (2 + 0.01 * columns + 0.02 * rows).astype(np.float32)
    small = resize_prediction(ramp, (80, 120))
    rows, columns = np.mgrid[:80, :120]
    expected = 2 + 0.01 * ((columns + 0.5) / 2 - 0.5) + 0.02 * ((rows + 0.5) / 2 - 0.5)
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(small[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize("hole", [0.0, np.nan])
def test_pixels_without_an_answer_do_not_bleed(hole):
    normal = np.zeros((8, 8, 3), np.float32)
    normal[...] = (0, 0.6, -0.8)
    normal[:, 4:] = hole
    wide = resize_prediction(normal, (16, 16))
    answered = wide.any(axis=-1)
    assert answered[:, :7].all()
    assert not answered[:, 9:].any()
    np.testing.assert_allclose(wide[answered], np.broadcast_to([0, 0.6, -0.8], wide[answered].shape), atol=1e-6)
