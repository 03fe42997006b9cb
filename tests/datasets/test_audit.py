"""An audit must see what is wrong: every test spoils a known scene in a known way."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.audit import audit, build_report, to_pieces
from ncbench.datasets.audit_axes import axes_problem, check_axes, convention_of, fit_axes
from ncbench.datasets.audit_measure import SIGNS, angles_between, frame_rays, measure, median_angle, total
from ncbench.datasets.audit_sheet import colour_normals, contact_sheet, histogram
from ncbench.datasets.fetch import fetch
from ncbench.datasets.frame import Frame
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for
from ncbench.datasets.store import open_store
from ncbench.errors import SourceError, StoreError
from ncbench.geometry.axes import AXES, convert_axes

H, W = 40, 56
K = np.array([[50.0, 0, 27.5], [0, 50.0, 19.5], [0, 0, 1]])


def rays():
    v, u = np.mgrid[:H, :W]
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones((H, W))], axis=-1)


def corner(stored="opencv", **changes):
    """The corner of a room, exact: a floor, a wall to the right and a wall ahead, each a plane n . p = -d."""
    planes = [((0.0, -1.0, 0.0), 1.0), ((-1.0, 0.0, 0.0), 1.2), ((0.0, 0.0, -1.0), 4.0)]
    depth, normal = np.full((H, W), np.inf), np.zeros((H, W, 3))
    for n, d in planes:
        slope = rays() @ np.array(n)
        found = np.where(slope < -1e-9, -d / np.where(slope < -1e-9, slope, 1), np.inf)
        nearer = found < depth
        depth = np.where(nearer, found, depth)
        normal[nearer] = n
    values = {
        "sequence": "a",
        "frame": 0,
        "image": None,
        "normal": convert_axes(normal, "opencv", stored).astype(np.float32) + np.float32(0),
        "valid": np.ones((H, W), bool),
        "depth": depth.astype(np.float32),
        "intrinsics": K,
    }
    return Frame(**{**values, **changes})


def sums_of(*frames):
    return total(measure(frame).sums for frame in frames)


def test_a_correct_frame():
    sums = sums_of(corner())
    assert (sums.pixels, sums.valid, sums.known_depth, sums.rays) == (H * W, H * W, H * W, H * W)
    assert sums.away[0] == 0
    assert sums.length_error == 0
    # the three faces are planes: only the pixels beside an edge see another plane in the depth
    assert median_angle(sums.angles[0]) < 0.5
    assert axes_problem(sums, "opencv") is None


def test_the_slants_are_those_of_plain_trigonometry():
    frame = corner()
    unit = rays() / np.linalg.norm(rays(), axis=-1, keepdims=True)
    expected = np.degrees(np.arccos(-(frame.normal * unit).sum(-1)))
    counts, _ = np.histogram(expected, bins=360, range=(0, 180))
    assert np.abs(np.cumsum(sums_of(frame).slant) - np.cumsum(counts)).max() <= 2  # rounding at a bin's edge


@pytest.mark.parametrize("declared", AXES)
@pytest.mark.parametrize("actual", AXES)
def test_a_wrong_declaration_is_named_and_the_right_one_proposed(declared, actual):
    """Files in ``actual`` axes, read as if they were in ``declared``."""
    truth = corner().normal
    file = convert_axes(truth, "opencv", actual)
    sums = sums_of(corner(normal=convert_axes(file, declared, "opencv")))
    problem = axes_problem(sums, declared)
    if declared == actual:
        assert problem is None
    else:
        assert f"axes: {declared}" in problem
        assert f"Write 'axes: {actual}'" in problem


@pytest.mark.parametrize("declared", AXES)
@pytest.mark.parametrize("actual", AXES)
def test_convention_of_inverts_any_mistake(declared, actual):
    file = convert_axes(np.array([0.36, -0.48, -0.8]), "opencv", actual)
    stored = convert_axes(file, declared, "opencv")
    signs = tuple(int(s) for s in np.sign(stored * np.array([0.36, -0.48, -0.8])))
    assert convention_of(declared, signs) == actual


def test_signs_that_no_convention_has():
    truth = corner().normal
    problem = axes_problem(sums_of(corner(normal=truth * np.float32([1, -1, 1]))), "opencv")
    assert "which no convention has" in problem
    assert convention_of("opencv", (1, -1, 1)) is None


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)])
def test_swapped_channels_are_told_from_swapped_signs(order):
    swapped = corner(normal=np.ascontiguousarray(corner().normal[..., order]))
    sums = sums_of(swapped)
    fit = fit_axes(sums.moment, sums.pairs)
    restored = swapped.normal[..., fit.order] * np.array(fit.signs)
    np.testing.assert_array_equal(restored, corner().normal)
    assert "in the order" in axes_problem(sums, "opencv")


def test_fit_axes_agrees_with_trying_all_48_readings_pixel_by_pixel():
    rng = np.random.default_rng(5)
    n, d = rng.normal(size=(2, 500, 3))
    n, d = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (n, d))
    d = d + 0.3 * n[:, [1, 2, 0]] * [-1, 1, -1]
    scores = {
        (order, signs): float(((n[:, order] * signs) * d).sum(1).mean())
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    }
    fit = fit_axes(n.T @ d, len(n))
    assert fit.score == pytest.approx(max(scores.values()))
    assert scores[fit.order, fit.signs] == pytest.approx(fit.score)
    assert fit.intended == pytest.approx(scores[(0, 1, 2), (1, 1, 1)])


def test_world_normals_fit_no_reading():
    turned = Rotation.from_euler("xyz", [50, 40, 60], degrees=True).as_matrix()
    noise = np.random.default_rng(0).normal(size=(H, W, 3))
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    problem = axes_problem(sums_of(corner(normal=(noise @ turned.T).astype(np.float32))), None)
    assert "no order or sign" in problem
    assert "world" in problem


def test_a_wall_seen_head_on_decides_nothing_about_x_and_y():
    wall = np.zeros((H, W, 3), np.float32)
    wall[..., 2] = -1
    frame = corner(normal=wall, depth=np.full((H, W), 2, np.float32))
    assert axes_problem(sums_of(frame), "ldf") is None
    assert "Write 'axes: opengl' or 'axes: dsine'" in axes_problem(
        sums_of(corner(normal=-wall, depth=np.full((H, W), 2, np.float32))), "opencv"
    )


def test_without_depth_the_sign_of_z_still_shows():
    flipped = corner(normal=corner().normal * np.float32([1, 1, -1]), depth=None)
    problem = axes_problem(sums_of(flipped), "opencv")
    assert "face away" in problem
    assert "opengl or dsine" in problem
    assert axes_problem(sums_of(corner(depth=None)), "opencv") is None
    assert axes_problem(sums_of(corner(depth=None, intrinsics=None)), "opencv") is None
    assert "Correct the signs" in axes_problem(sums_of(flipped), None)


def test_facing_counts_away_under_every_choice_of_signs():
    frame = corner()
    sums = sums_of(frame)
    for index, signs in enumerate(SIGNS):
        assert sums.away[index] == int(((frame.normal * np.array(signs) * rays()).sum(-1) > 0).sum())
    assert SIGNS[0] == (1, 1, 1)


def test_rays_come_from_the_column_of_a_camera_that_is_no_pinhole():
    # Hypersim's form: (u, v, 1) in [-1, 1] with v up, to right-up-back axes; here the pinhole camera K written so
    x, y = (W - 1) / 2, (H - 1) / 2
    from_uv = np.array([[W / 2 / 50, 0, (x - 27.5) / 50], [0, H / 2 / 50, -(y - 19.5) / 50], [0, 0, -1.0]])
    frame = corner(intrinsics=None, extra={"ray_matrix": from_uv.ravel().tolist()})
    np.testing.assert_allclose(frame_rays(frame), rays(), atol=1e-12)
    assert sums_of(frame).pairs > 0


def test_up_is_found_from_tilted_cameras():
    frames = []
    for index, tilt in enumerate((-20, 5, 25)):
        # world z up: a level camera looks along world y; the floor's normal is the world's +z
        level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        pose = np.eye(4)
        pose[:3, :3] = level @ Rotation.from_euler("x", tilt, degrees=True).as_matrix()
        floor = (pose[:3, :3].T @ [0, 0, 1]).astype(np.float32)
        normal = np.broadcast_to(floor, (H, W, 3)).copy()
        frames.append(corner(frame=index, normal=normal, depth=None, intrinsics=None, cam_to_world=pose))
    report = build_report("x", None, to_pieces(measure(frame) for frame in frames))
    up = report.up[report.up["camera_up"]].iloc[0]
    assert (up["axis"], up["share"]) == ("+z", 1.0)
    assert up["mean_off_degrees"] < 1e-4
    assert report.up["camera_up"].sum() == 1


def test_statistics_of_sequences_and_coverage():
    half = np.ones((H, W), bool)
    half[:, : W // 2] = False
    normal = np.where(half[..., None], corner().normal, np.float32(0))
    flow = np.full((H, W, 2), np.nan, np.float32)
    flow[:10] = 0
    frames = [
        corner(normal=normal, valid=half, flow=flow),
        corner(frame=1, normal=np.zeros((H, W, 3), np.float32), valid=np.zeros((H, W), bool)),
        corner(sequence="b"),
    ]
    report = build_report("x", "opencv", to_pieces(measure(frame) for frame in frames))
    a, b = report.sequences.iloc[0], report.sequences.iloc[1]
    assert (a["sequence"], a["frames"], a["without_normals"], b["sequence"]) == ("a", 2, 1, "b")
    assert a["valid"] == pytest.approx(0.25)
    assert a["flow"] == pytest.approx(10 / H / 2)
    assert report.frames["valid"].tolist() == [0.5, 0.0, 1.0]
    findings = report.findings.set_index("check")
    assert findings.loc["coverage", "state"] == "warning"
    assert "1 of 3 frames none" in findings.loc["coverage", "detail"]
    assert report.ok
    assert np.isnan(report.frames["depth_angle_median"][1])


def test_pictures_that_come_again(tmp_path):
    frames = [corner(frame=i, image=bytes([i % 3])) for i in range(5)] + [corner(sequence="b", image=None)] * 2
    found = build_report("x", None, to_pieces(measure(frame) for frame in frames)).duplicates
    assert found.to_numpy().tolist() == [["a", 3, "a", 0], ["a", 4, "a", 1]]


@pytest.mark.parametrize("values", [[10.0], [0.0], [180.0], [1.0, 2.0, 50.0], list(np.linspace(3, 90, 1001))])
def test_median_of_a_histogram(values):
    counts, _ = np.histogram(values, bins=360, range=(0, 180))
    assert median_angle(counts) == pytest.approx(np.median(values), abs=0.5)
    assert np.isnan(median_angle(np.zeros(360, np.int64)))


def test_angles_are_exact_near_zero_and_180():
    a = np.array([[1.0, 0, 0]] * 3)
    angle = np.radians([1e-6, 90, 180 - 1e-6])
    b = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    np.testing.assert_allclose(angles_between(a, b), [1e-6, 90, 180 - 1e-6], rtol=1e-9)


def test_a_store_is_audited_the_same_by_one_worker_and_two(tiny_data, tmp_path):
    store = tiny_data / "data" / "stores" / "tiny"
    seen = []
    report = audit(store, progress=lambda *done: seen.append(done))
    assert seen == [(1, 1)]
    assert report.ok
    assert report.name == "tiny"
    assert len(report.frames) == len(open_store(store))
    assert report.signs.iloc[0]["mean_cosine"] == report.signs["mean_cosine"].max()
    again = audit(store, jobs=2)
    files = report.save(tmp_path / "one")
    for one, two in zip(files, again.save(tmp_path / "two"), strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert len(audit(store, max_frames=2).frames) == 2
    sheet = contact_sheet(store, report, tmp_path / "sheet.png", frames=3)
    with Image.open(sheet) as image:
        assert image.width == 720
        assert len(image.convert("RGB").getcolors(1 << 20)) > 100
    with pytest.raises(StoreError):
        audit(tmp_path)


@pytest.mark.parametrize("wrong", ["opencv", "dsine", "ldf"])
def test_prepare_refuses_a_wrong_declaration(tiny_data, tmp_path, wrong):
    """The raw files of ``tiny`` are in OpenGL axes."""
    card = catalog.read_card(DatasetCard, tiny_data / "datasets" / "tiny.yaml")
    raw = tiny_data / "data" / "raw" / "tiny"
    with pytest.raises(SourceError, match=rf"axes: {wrong}.*Write 'axes: opengl' in the card"):
        prepare(recipe_for(card.model_copy(update={"axes": wrong}), raw), tmp_path / "store", check=check_axes)
    with pytest.raises(StoreError, match="unfinished"):
        open_store(tmp_path / "store")
    prepare(recipe_for(card, raw), tmp_path / "store", check=check_axes)
    check_axes(open_store(tmp_path / "store"), frames=1)


@pytest.mark.parametrize("name", ["tum-mini", "kitti-mini", "davis-mini"])
def test_the_video_sets_pass(name, tmp_path):
    card = catalog.load(DatasetCard, name)
    fetch(card, tmp_path / "raw")
    prepare(recipe_for(card, tmp_path / "raw"), tmp_path / "store", check=check_axes)
    report = audit(tmp_path / "store")
    assert report.ok
    assert (report.frames["valid"] > 0).all() == (name == "tum-mini")


def test_colours_of_the_canonical_directions():
    normal = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [0, 0, 0]]], np.float32)
    colours = colour_normals(normal, np.array([[True, True, True, False]]))
    assert colours[0].tolist() == [[128, 128, 255], [255, 128, 128], [128, 255, 128], [40, 40, 40]]


def test_an_empty_histogram_draws():
    assert histogram(np.zeros(36), 180, "none").size[0] > 0


@pytest.mark.real
def test_normals_from_real_depth_agree_with_themselves():
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "real" / "icl_nuim_slambook"
    if not folder.is_dir():
        pytest.skip("no real files")
    import cv2

    depth = cv2.imread(str(folder / "depth" / "1.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 5000
    points_x = (np.arange(640) - 319.5) / 481.2
    points_y = (np.arange(480)[:, None] - 239.5) / 480.0
    points = np.stack([depth * points_x, depth * points_y, depth], axis=-1).astype(np.float64)
    along, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normal = np.cross(down, along)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    frame = Frame(
        "a",
        0,
        None,
        normal.astype(np.float32),
        np.ones((480, 640), bool),
        depth=depth,
        intrinsics=np.array([[481.2, 0, 319.5], [0, 480.0, 239.5], [0, 0, 1]]),
    )
    sums = sums_of(frame)
    assert sums.away[0] / sums.rays < 0.01
    assert median_angle(sums.angles[0]) < 0.5
    assert axes_problem(sums, None) is None
