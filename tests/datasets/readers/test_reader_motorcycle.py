"""The motorcycle pair: synthetic pairs in closed form, and the real one against its own pictures."""

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from ncbench.datasets.readers.motorcycle import MotorcycleReader, carry_to_right, export_motorcycle, hidden_on_right
from ncbench.errors import CardError, SourceError

H, W = 20, 60
FOCAL, CX, CY, DOFFS, BASELINE = 100.0, 25.0, 9.5, 8.0, 0.2
DEPTH_CONSTANT = FOCAL * BASELINE


def rays(cx):
    y, x = np.mgrid[:H, :W]
    return np.stack([(x - cx) / FOCAL, (y - CY) / FOCAL, np.ones((H, W))], -1)


def write_pair(root, disparity):
    root.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "im0.png")
    Image.fromarray(pixels[:, ::-1]).save(root / "im1.png")
    np.savez(root / "disp0.npz", disparity.astype(np.float32))
    lines = (
        f"cam0=[{FOCAL} 0 {CX}; 0 {FOCAL} {CY}; 0 0 1]",
        f"cam1=[{FOCAL} 0 {CX + DOFFS}; 0 {FOCAL} {CY}; 0 0 1]",
        f"doffs={DOFFS}",
        f"baseline={BASELINE * 1000}",
        f"width={W}",
        f"height={H}",
    )
    (root / "calib.txt").write_text("\n".join(lines))


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_slanted_plane_from_both_sides(tmp_path):
    normal, offset = np.array([0.4, -0.3, -0.85]) / np.linalg.norm([0.4, -0.3, -0.85]), -1.4
    left_depth = offset / (rays(CX) @ normal)
    right_depth = (offset - normal[0] * BASELINE) / (rays(CX + DOFFS) @ normal)
    write_pair(tmp_path, DEPTH_CONSTANT / left_depth - DOFFS)
    left, right = MotorcycleReader(tmp_path, {}).read("motorcycle", [0, 1])
    np.testing.assert_allclose(left.depth, left_depth, rtol=1e-5)
    known = right.depth > 0
    assert known.mean() > 0.7
    np.testing.assert_allclose(right.depth[known], right_depth[known], rtol=1e-5)
    for frame in (left, right):
        assert angle(frame.normal[frame.valid].astype(np.float64), normal).max() < 0.05
    assert left.cam_to_world.tolist() == np.eye(4).tolist()
    assert right.cam_to_world[:3, 3].tolist() == [BASELINE, 0, 0]
    assert right.intrinsics[0, 2] == CX + DOFFS
    # the plane reprojected through the two poses gives the flow
    points = rays(CX) * left.depth[..., None] - right.cam_to_world[:3, 3]
    seen = points @ right.intrinsics.T
    np.testing.assert_allclose(seen[..., 0] / seen[..., 2] - np.arange(W), left.flow[..., 0], atol=1e-3)
    assert not left.flow[..., 1].any()


def test_a_near_square_hides_what_lies_behind_it(tmp_path):
    disparity = np.full((H, W), 5.0)
    disparity[6:14, 30:40] = 12.0
    disparity[0, 0:3] = [np.nan, np.inf, -np.inf]
    write_pair(tmp_path, disparity)
    left, right = MotorcycleReader(tmp_path, {}).read("motorcycle", [0, 1])
    expected = np.zeros((H, W), bool)
    expected[:, :5] = True  # leaves the picture: x - 5 < 0
    expected[0, :3] = False  # unknown
    expected[6:14, 23:30] = True  # lands at 18..24, where the square (30..39 less 12) is seen
    np.testing.assert_array_equal(left.occluded, expected)
    assert np.isnan(left.flow[0, :3]).all()
    assert left.flow[8, 35].tolist() == [-12, 0]
    right_depth = np.full((H, W), DEPTH_CONSTANT / (5 + DOFFS), dtype=np.float32)
    right_depth[:, W - 5 :] = 0  # seen by the right camera alone
    right_depth[6:14, 28:35] = 0  # behind the square as the left camera sees it, bare on the right
    right_depth[6:14, 18:28] = DEPTH_CONSTANT / (12 + DOFFS)
    np.testing.assert_allclose(right.depth[1:], right_depth[1:], rtol=1e-6)
    assert right.flow is None
    assert right.occluded is None
    assert not (right.valid & (right.depth == 0)).any()


def test_kernels_against_a_slow_search():
    rng = np.random.default_rng(3)
    left = np.repeat(rng.uniform(2, 14, (6, 10)), 5, axis=1) + rng.uniform(0, 0.4, (6, 50))
    left[rng.random(left.shape) < 0.05] = np.nan
    expected = np.full(left.shape, np.nan)
    for y in range(6):
        for column in range(50):
            for x in range(49):
                a, b = left[y, x], left[y, x + 1]
                if abs(a - b) < 1 and x - a <= column <= x + 1 - b:
                    expected[y, column] = np.fmax(expected[y, column], np.interp(column, [x - a, x + 1 - b], [a, b]))
    right = carry_to_right(left, 1.0)
    np.testing.assert_allclose(right, expected, atol=1e-9)
    hidden = hidden_on_right(left, right, 1.0)
    for y in range(6):
        for x in range(50):
            target = x - left[y, x]
            inside = 0 <= target <= 49
            nearer = inside and right[y, round(target)] > left[y, x] + 1
            assert hidden[y, x] == (not np.isnan(target) and (not inside or nearer))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("motorcycle")
    export_motorcycle(root, {})
    return root


@pytest.fixture(scope="module")
def views(exported):
    return list(MotorcycleReader(exported, {}).read("motorcycle", [0, 1]))


def test_the_real_pictures_are_the_shipped_files(exported, views):
    left, right, disparity = skimage.data.stereo_motorcycle()
    for frame, pixels in zip(views, (left, right), strict=True):
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(frame.image, np.uint8), 1)[..., ::-1], pixels)
    assert views[0].image == (exported / "im0.png").read_bytes()
    np.testing.assert_array_equal(views[0].depth > 0, np.isfinite(disparity))


def test_real_geometry_is_sane(views):
    for frame in views:
        assert frame.size == (500, 741)
        known = frame.depth > 0
        assert 2.0 < frame.depth[known].min() < frame.depth[known].max() < 5.1  # a garage
        np.testing.assert_allclose(np.linalg.norm(frame.normal[frame.valid], axis=-1), 1, atol=1e-6)
        assert 0.75 < frame.valid.mean() < 0.95


def test_real_floor_is_one_plane_that_looks_up(views):
    left = views[0]
    rows, columns = np.mgrid[440:490, 50:300]
    image = np.stack([columns, rows, np.ones_like(rows)], -1)
    points = (image @ np.linalg.inv(left.intrinsics).T * left.depth[440:490, 50:300, None]).reshape(-1, 3)
    plane = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][2]
    plane *= -np.sign(plane @ points.mean(0))
    assert angle(plane, np.array([0, -1, 0])) < 20  # the camera looks down a little
    assert np.median(angle(left.normal[440:490, 50:300].reshape(-1, 3), plane)) < 1.5


def test_real_flow_explains_the_right_picture(views):
    left, right = (cv2.imdecode(np.frombuffer(frame.image, np.uint8), 1).astype(np.float64) for frame in views)
    flow, occluded = views[0].flow, views[0].occluded
    y, x = np.mgrid[:500, :741].astype(np.float32)
    warped = cv2.remap(right, x + np.nan_to_num(flow[..., 0]), y, cv2.INTER_LINEAR)
    known = np.isfinite(flow).all(-1)
    error = np.abs(warped - left).mean(-1)
    assert error[known & ~occluded].mean() < 6
    assert np.abs(right - left).mean(-1)[known & ~occluded].mean() > 30
    assert error[known & occluded].mean() > 50  # what is marked hidden really is not there


def test_real_depths_of_both_views_agree(views):
    left, right = views
    y, x = np.mgrid[:500, :741].astype(np.float32)
    carried = cv2.remap(right.depth, x + np.nan_to_num(left.flow[..., 0]), y, cv2.INTER_NEAREST)
    both = (carried > 0) & (left.depth > 0) & ~left.occluded
    assert np.percentile(np.abs(carried - left.depth)[both], 90) < 0.002


def test_sequences_fingerprint_and_single_frames(exported, views):
    reader = MotorcycleReader(exported, {})
    assert dict(reader.sequences()) == {"motorcycle": (0, 1)}
    assert dict(reader.extra_features()) == {}
    assert reader.normal_source == "plane_fit"
    assert reader.fingerprint("motorcycle", [0]) != reader.fingerprint("motorcycle", [1])
    (right,) = reader.read("motorcycle", [1])
    np.testing.assert_array_equal(right.normal, views[1].normal)
    with pytest.raises(SourceError, match="not \\[2\\]"):
        next(reader.read("motorcycle", [2]))


@pytest.mark.parametrize("name", ["im0.png", "im1.png", "disp0.npz", "calib.txt"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage"])
def test_damaged_files_are_named(tmp_path, name, damage):
    write_pair(tmp_path, np.full((H, W), 5.0))
    path = tmp_path / name
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "missing": b"", "garbage": b"x" * 99}[damage])
    if damage == "missing":
        path.unlink()
    with pytest.raises(SourceError, match=name):
        list(MotorcycleReader(tmp_path, {}).read("motorcycle", [0, 1]))


def test_other_sizes_and_shapes_are_refused(tmp_path):
    write_pair(tmp_path, np.full((H, W + 1), 5.0))
    with pytest.raises(SourceError, match=r"disp0\.npz: expected 60 x 20 pixels like calib\.txt, found 61 x 20"):
        list(MotorcycleReader(tmp_path, {}).read("motorcycle", [0]))
    np.savez(tmp_path / "disp0.npz", np.zeros((H, W, 3)))
    with pytest.raises(SourceError, match=r"disp0\.npz: expected a disparity per pixel"):
        list(MotorcycleReader(tmp_path, {}).read("motorcycle", [0]))
    write_pair(tmp_path, np.full((H, W), 5.0))
    Image.fromarray(np.zeros((H, W + 1, 3), np.uint8)).save(tmp_path / "im1.png")
    with pytest.raises(SourceError, match=r"im1\.png"):
        list(MotorcycleReader(tmp_path, {}).read("motorcycle", [0, 1]))


def test_wrong_folder_and_settings(tmp_path):
    with pytest.raises(SourceError, match="found nothing"):
        MotorcycleReader(tmp_path / "none", {})
    with pytest.raises(CardError, match="unknown key 'size'"):
        export_motorcycle(tmp_path, {"size": 3})
    write_pair(tmp_path, np.full((H, W), 5.0))
    with pytest.raises(CardError, match="same_surface"):
        MotorcycleReader(tmp_path, {"same_surface": 2.0})
