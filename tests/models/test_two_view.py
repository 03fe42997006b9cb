"""Two-view geometry against exact scenes: motion and depth in closed form, and rendered frames with known depth."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.models.base import Clip
from ncbench.models.registry import LoadedModel, load_adapter
from ncbench.models.two_view import TwoViewDepth, camera_motion, triangulate

H, W = 96, 128
K = np.array([[110.0, 0, (W - 1) / 2], [0, 110.0, (H - 1) / 2], [0, 0, 1]])
TURN = Rotation.from_euler("xyz", [1.5, -2.0, 1.0], degrees=True).as_matrix()
SHIFT = np.array([0.8, -0.36, 0.48])  # unit length


def scene():
    """A floor, a wall and a ball's bump: depth along every ray, and where the moved camera sees each point."""
    rays = pinhole_rays(K, H, W)
    y, x = np.mgrid[:H, :W]
    depth = 8 + np.sin(x / 9) + 0.5 * np.cos(y / 7) + 3.0 * (x > W / 2)
    points = depth[..., None] * rays @ TURN.T + SHIFT
    return rays, depth, points / points[..., 2:]


def test_triangulation_is_exact():
    rays, depth, seen = scene()
    np.testing.assert_allclose(triangulate(rays, seen, TURN, SHIFT), depth, rtol=1e-5)


def test_points_behind_a_camera_have_no_depth():
    rays, _, seen = scene()
    assert not triangulate(rays, seen, TURN, -SHIFT).any()


def test_motion_is_found_among_outliers():
    rays, _, seen = scene()
    rays, seen = rays.reshape(-1, 3), seen.reshape(-1, 3).copy()
    rng = np.random.default_rng(0)
    seen[:, :2] += rng.normal(0, 0.1 / K[0, 0], (len(seen), 2))
    wrong = rng.choice(len(seen), len(seen) // 4, replace=False)
    seen[wrong, :2] = rng.uniform(-0.5, 0.5, (len(wrong), 2))
    rotation, translation = camera_motion(rays, seen, 0.5 / K[0, 0], 0.5 / K[0, 0])
    assert np.degrees(Rotation.from_matrix(rotation @ TURN.T).magnitude()) < 0.1
    assert np.degrees(np.arccos(translation @ SHIFT)) < 2


def test_a_camera_that_only_turns_sees_no_depth():
    rays, _, _ = scene()
    seen = rays.reshape(-1, 3) @ TURN.T
    assert camera_motion(rays.reshape(-1, 3), seen / seen[:, 2:], 0.5 / K[0, 0], 0.5 / K[0, 0]) is None
    assert camera_motion(rays.reshape(-1, 3)[:4], seen[:4], 0.01, 0.0) is None


WALLS = np.array([[0.8, 0.1, -0.6], [-0.7, 0.15, -0.7]])  # a corner: a single plane would leave two motions possible


def corner(frames, step=1.0):
    """Two textured walls before a camera that moves: pictures, depth along every ray, and which wall a pixel shows."""
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.integers(0, 256, (200, 300, 3)), np.ones((6, 6, 1))).astype(np.float32)
    texture = cv2.GaussianBlur(blocks, (0, 0), 2)
    normals = WALLS / np.linalg.norm(WALLS, axis=-1, keepdims=True)
    rays = pinhole_rays(K, H, W)
    images, depths, shown = [], [], []
    for i in range(frames):
        origin = step * i * np.array([0.3, 0.1, 0.05])
        walls = np.stack([(normal @ ([0.2, 0, 5.0] - origin)) / (rays @ normal) for normal in normals])
        walls[walls <= 0] = np.inf
        which = walls.argmin(axis=0)
        depth = walls.min(axis=0)
        points = origin + depth[..., None] * rays
        u = 900 + 30 * np.where(which == 0, points[..., 0], -points[..., 0]) + 400 * (which - 0.5)
        v = 600 + 30 * points[..., 1]
        images.append(cv2.remap(texture, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR))
        depths.append(depth)
        shown.append(which)
    return np.stack(images).astype(np.uint8), np.stack(depths), normals[np.stack(shown)]


def clip_of(images, first=0):
    return Clip("corner", tuple(range(first, first + len(images))), images, np.stack([K] * len(images)))


def test_depth_of_pictures_up_to_a_scale_each():
    images, depths, _ = corner(3)
    found = TwoViewDepth({"reach": 1}).predict(clip_of(images)).depth
    inner = np.s_[12:-12, 16:-16]
    for answer, depth in zip(found, depths, strict=True):
        ratio = answer[inner] / depth[inner]
        assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.03


def test_answers_do_not_depend_on_how_clips_are_cut():
    images, _, _ = corner(4)
    model = TwoViewDepth({"reach": 2})
    whole = model.predict(clip_of(images)).depth
    assert (whole > 0).mean() > 0.5  # the comparison is about something
    answers = [answer.depth for answer in model.stream([clip_of(images[:3]), clip_of(images[3:], 3)])]
    assert [len(answer) for answer in answers] == [3, 1]
    np.testing.assert_array_equal(np.concatenate(answers), whole)


@pytest.mark.parametrize(
    ("reach", "others"),
    [(1, [1, 2, 3, 4, 5, 4]), (2, [2, 3, 4, 5, 2, 3]), (4, [4, 5, 5, 0, 0, 1]), (9, [5, 5, 5, 0, 0, 0])],
)
@pytest.mark.parametrize("cut", [[6], [2, 1, 3], [1] * 6])
def test_a_later_frame_is_the_other_view_and_near_the_end_an_earlier_one(reach, others, cut, monkeypatch):
    monkeypatch.setattr(
        TwoViewDepth, "_depth", lambda _, view, other: np.float32([[view.image[0, 0, 0], other.image[0, 0, 0]]])
    )
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    starts = np.cumsum([0, *cut])
    clips = [clip_of(images[first : first + length], first) for first, length in zip(starts[:-1], cut, strict=True)]
    answers = [answer.depth for answer in TwoViewDepth({"reach": reach}).stream(clips)]
    assert [len(answer) for answer in answers] == cut
    pairs = np.concatenate(answers)[:, 0]
    np.testing.assert_array_equal(pairs, np.stack([np.arange(6), others], axis=-1))


def test_the_card_gives_the_walls_normals():
    card = catalog.load(ModelCard, "two-view")
    images, _, normals = corner(3, step=0.5)
    model = LoadedModel(card, load_adapter(card))
    answer = model.predict(clip_of(images))
    error = np.degrees(np.arccos(np.clip((answer * normals).sum(-1)[:, 16:-16, 20:-20], -1, 1)))
    assert np.median(error) < 12
    with pytest.raises(ModelError, match="needs intrinsics"):
        model.predict(Clip("corner", (0, 1, 2), images))


def test_one_frame_and_a_camera_at_rest_have_no_answer():
    images, _, _ = corner(1)
    assert not TwoViewDepth({}).predict(clip_of(images)).depth.any()
    assert not TwoViewDepth({}).predict(clip_of(np.concatenate([images, images]))).depth.any()
    black = np.zeros((2, 30, 40, 3), np.uint8)
    assert not TwoViewDepth({}).predict(clip_of(black)).depth.any()


def test_settings_are_checked():
    with pytest.raises(CardError, match="sample_every"):
        TwoViewDepth({"sample_every": 0})
