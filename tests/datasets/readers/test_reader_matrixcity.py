"""The MatrixCity reader on its miniature, against the renderer's truth; and the order of frames in clips."""

import itertools
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.formats.exr import read_exr
from ncbench.datasets.mini.layout_matrixcity import (
    MatrixCityLayoutSettings,
    matrixcity_scene,
    write_matrixcity_layout,
)
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.source_files import write_exr
from ncbench.datasets.readers.matrixcity import MatrixCityReader
from ncbench.datasets.readers.matrixcity_clips import ClipRule, order_clips
from ncbench.errors import CardError, SourceError

LAYOUT = {
    "seed": 12,
    "drives": 2,
    "frames": 3,
    "height": 48,
    "width": 64,
    "blocks": [
        {"city": "small_city", "view": "street", "name": "small_city_road_down"},
        {
            "city": "small_city",
            "view": "aerial",
            "name": "block_3",
            "packed": False,
            "suffixes": False,
            "cameras": "pose",
        },
        {"city": "big_city", "view": "street", "name": "block_A"},
    ],
}
SETTINGS = {"axes": "opengl", "sizes": None, "clips": {"max_step": 1.5}}
BIG = {"city": "big_city", "views": ["street"], "sizes": None, "clips": {"max_step": 1.5}}
AERIAL = "small_city_normal/aerial/train/block_3/block_3"
# float32 pixels near 1 are off by at most 2^-25, their double by 2^-24, in each of three components; and the frame's
# own float32 adds as much
FLOAT_BOUND = np.degrees(2 * np.sqrt(3) * 2**-24)


def angles(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.einsum("ni,ni->n", a, b)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("matrixcity")
    write_matrixcity_layout(out, LAYOUT)
    return out


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "raw")
    return tmp_path / "raw"


def scene_of(sequence):
    layout = MatrixCityLayoutSettings.parse(LAYOUT, "test")
    block = next(item for item in layout.blocks if item.name == sequence.split("-")[1])
    return matrixcity_scene(layout, block)


def every_frame(reader):
    """Each frame with the renderer's frame of the same file number, and that of the clip's next frame."""
    for sequence, places in reader.sequences().items():
        scene, moments = scene_of(sequence)
        for frame in reader.read(sequence, places):
            yield frame, render_frame(scene, moments[frame.extra["source_frame"]])


@pytest.mark.parametrize("depth", ["float32", "float16"])
def test_small_city_agrees_with_the_renderer(depth, made, record_property):
    errors = []
    for frame, exact in every_frame(MatrixCityReader(made, SETTINGS | {"depth": depth})):
        np.testing.assert_array_equal(frame.valid, exact.valid)
        errors.append(angles(frame.normal[frame.valid], exact.normal[frame.valid]))
        np.testing.assert_allclose(frame.depth, exact.depth, rtol=2**-11 if depth == "float16" else 1e-6)
        np.testing.assert_allclose(frame.cam_to_world, exact.cam_to_world, atol=1e-12)
        np.testing.assert_allclose(frame.intrinsics, exact.intrinsics, atol=1e-9)
    errors = np.concatenate(errors)
    record_property("degrees", f"mean {errors.mean():.2g}, max {errors.max():.2g}")
    assert errors.max() < FLOAT_BOUND


def test_big_city_gets_its_normals_from_depth(made):
    reader = MatrixCityReader(made, BIG)
    assert reader.normal_source == "cross_product"
    for frame, exact in every_frame(reader):
        assert 0.8 < frame.valid.mean() <= exact.valid.mean()
        assert np.median(angles(frame.normal[frame.valid], exact.normal[frame.valid])) < 0.05


def test_frames_are_put_in_order_and_flow_leads_to_the_next(made):
    reader = MatrixCityReader(made, SETTINGS)
    assert len(reader.sequences()) == 4
    for sequence, places in reader.sequences().items():
        scene, moments = scene_of(sequence)
        frames = list(reader.read(sequence, places))
        seen = [moments[frame.extra["source_frame"]] for frame in frames]
        assert seen in ([seen[0] + k for k in range(3)], [seen[0] - k for k in range(3)])
        if seen[0] < seen[1]:  # the renderer's own flow leads forward in time
            for frame, moment in zip(frames[:2], seen, strict=False):
                exact = render_frame(scene, moment)
                known = np.isfinite(exact.flow[..., 0])
                np.testing.assert_allclose(frame.flow[known], exact.flow[known], atol=1e-3)
                both = known & frame.valid
                assert (frame.occluded[both] != exact.occluded[both]).mean() < 0.05
        assert frames[-1].flow is None


def test_a_subset_of_frames_reads_as_the_whole_does(made):
    reader = MatrixCityReader(made, SETTINGS)
    name = "aerial-block_3-0001"
    whole = list(reader.read(name, (0, 1, 2)))
    (alone,) = MatrixCityReader(made, SETTINGS).read(name, [1])
    np.testing.assert_array_equal(alone.flow, whole[1].flow)
    np.testing.assert_array_equal(alone.normal, whole[1].normal)
    assert alone.image == whole[1].image


def test_wrong_channels_and_wrong_cameras_are_named(made, root):
    wrong = {"components": {"channels": ["B", "G", "R"], "signs": [1, -1, 1]}}
    with pytest.raises(SourceError, match=r"\['R', 'G', 'B'\] times \[1, -1, 1\] fits"):
        list(MatrixCityReader(made, SETTINGS | wrong).read("street-small_city_road_down-0000", [0]))
    with pytest.raises(SourceError, match="fits|point away|level ground"):
        list(MatrixCityReader(made, SETTINGS | {"axes": "dsine"}).read("street-small_city_road_down-0000", [0]))
    with pytest.raises(SourceError, match="found none"):
        MatrixCityReader(made, SETTINGS | {"cameras": "transforms", "views": ["aerial"]}).sequences()
    path = root / "small_city/street/train/small_city_road_down/transforms.json"
    text = json.loads(path.read_text())
    for frame in text["frames"]:
        frame["rot_mat"] = (np.array(frame["rot_mat"]) * 100).tolist()
    path.write_text(json.dumps(text))
    with pytest.raises(SourceError, match=r"scaled by 0\.01, found a scale of 1"):
        MatrixCityReader(root, SETTINGS).sequences()


def test_a_tilted_world_is_caught_by_the_road(root):
    """No order of channels undoes poses that are turned by 25 degrees; the ground tells."""
    path = root / "small_city/aerial/pose/block_3/transforms_train.json"
    text = json.loads(path.read_text())
    angle = np.radians(25)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    for frame in text["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, :3] = turn @ matrix[:3, :3]
        frame["transform_matrix"] = matrix.tolist()
    path.write_text(json.dumps(text))
    reader = MatrixCityReader(root, SETTINGS | {"views": ["aerial"]})
    with pytest.raises(SourceError, match=r"level ground to be \(0, 0, 1\)"):
        list(reader.read("aerial-block_3-0000", [0]))


def test_missing_and_damaged_files_are_told(root):
    reader = MatrixCityReader(root, SETTINGS)
    path = root / AERIAL / "0000.exr"
    clip = next(name for name, clip in reader._block("aerial-block_3").clips.items() if 0 in clip)
    place = reader._block("aerial-block_3").clips[clip].index(0)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SourceError, match="0000.exr"):
        list(reader.read(clip, [place]))
    write_exr(path, dict.fromkeys("RGB", np.full((10, 10), 0.5, np.float32)))
    with pytest.raises(SourceError, match="like its picture"):
        list(reader.read(clip, [place]))
    path.unlink()
    with pytest.raises(SourceError, match=r"0000\.exr: expected a file, found none, although"):
        MatrixCityReader(root, SETTINGS).sequences()
    shutil.rmtree(root / "small_city_normal")
    with pytest.raises(SourceError, match=r"expected .*\.tar or a folder of that name"):
        MatrixCityReader(root, SETTINGS).sequences()
    shutil.rmtree(root / "small_city" / "street")
    with pytest.raises(SourceError, match="expected a folder with one archive"):
        MatrixCityReader(root, SETTINGS)


def test_official_sizes_and_units_are_checked(made):
    with pytest.raises(SourceError, match="expected 1920 x 1080 pixels like the data set's aerial pictures"):
        list(MatrixCityReader(made, {"clips": {"max_step": 1.5}}).read("aerial-block_3-0000", [0]))
    with pytest.raises(SourceError, match="median depth"):
        list(MatrixCityReader(made, SETTINGS | {"depth_scale": 1e-5}).read("aerial-block_3-0000", [0]))
    with pytest.raises(SourceError, match="there is no sequence 'aerial-block_9-0000'"):
        list(MatrixCityReader(made, SETTINGS).read("aerial-block_9-0000", [0]))
    with pytest.raises(CardError, match="max_steps"):
        MatrixCityReader(made, {"clips": {"max_steps": 1}})


def test_the_files_hold_unreals_left_hand_and_nothing_for_the_sky(made):
    stored = read_exr(made / AERIAL / "0000.exr", sorted)
    scene, moments = scene_of("aerial-block_3-0000")
    exact = render_frame(scene, moments[0])
    world = exact.normal @ exact.cam_to_world[:3, :3].T
    expected = np.where(exact.valid[..., None], (world * [1, -1, 1] + 1) / 2, 0)
    found = np.stack([stored[name] for name in "RGB"], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def line(count, step, start=0.0, turn=0.0):
    """Poses along x that look along z turned by ``turn`` degrees about y."""
    pose = np.eye(4)
    pose[:3, 2] = [np.sin(np.radians(turn)), 0, np.cos(np.radians(turn))]
    poses = np.tile(pose, (count, 1, 1))
    poses[:, 0, 3] = start + step * np.arange(count)
    return list(poses)


def test_two_streets_and_two_directions_make_four_clips():
    poses = line(5, 5.0) + line(5, 5.0, turn=90) + line(4, 5.0, start=100) + line(2, 5.0, start=500)
    shuffled = np.random.default_rng(0).permutation(len(poses))
    numbers = {int(number): poses[index] for number, index in enumerate(shuffled)}
    clips = order_clips(numbers, ClipRule())
    found = sorted(sorted(int(shuffled[number]) for number in clip) for clip in clips)
    assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13], [14, 15]]
    for clip in clips:
        x = np.array([numbers[number][0, 3] for number in clip])
        assert (np.abs(np.diff(x)) == 5.0).all()
        assert abs(np.diff(x).sum()) == 5.0 * (len(x) - 1)  # one way, without turning back
    assert len(order_clips(numbers, ClipRule(min_frames=3))) == 3
    assert max(map(len, order_clips(numbers, ClipRule(max_frames=2)))) == 2
    assert order_clips({}, ClipRule()) == []


@settings(max_examples=40, deadline=None)
@given(
    points=st.lists(st.tuples(*[st.floats(-30, 30)] * 2, st.floats(0, 360)), min_size=1, max_size=25),
    longest=st.integers(1, 8),
)
def test_clips_part_the_frames_and_keep_the_limits(points, longest):
    poses = {}
    for number, (x, y, turn) in enumerate(points):
        pose = line(1, 0, turn=turn)[0]
        pose[:3, 3] = [x, y, 0]
        poses[3 * number] = pose
    rule = ClipRule(max_step=12, max_turn=45, max_frames=longest)
    clips = order_clips(poses, rule)
    assert sorted(number for clip in clips for number in clip) == sorted(poses)
    assert clips == order_clips(dict(reversed(poses.items())), rule)
    for clip in clips:
        assert len(clip) <= longest
        for a, b in itertools.pairwise(clip):
            assert np.linalg.norm(poses[a][:3, 3] - poses[b][:3, 3]) <= 12 + 1e-9
            assert poses[a][:3, 2] @ poses[b][:3, 2] >= np.cos(np.radians(45)) - 1e-9


@pytest.mark.parametrize("name", ["matrixcity", "matrixcity-small", "matrixcity-mini"])
def test_the_cards_settings_fit_the_reader(name, made):
    card = catalog.load(DatasetCard, name)
    values = card.reader_settings() | ({"views": ["street"]} if name == "matrixcity" else {})
    assert MatrixCityReader(made, values).normal_source == card.normals
