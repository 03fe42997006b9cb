"""Omnidata's renders of Replica, read back from a miniature whose truth is exact."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ncbench.datasets.mini.layout_replica import omnidata_view, write_replica_omnidata_layout
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.readers.replica_omnidata import SPLITS, ReplicaOmnidataReader
from ncbench.errors import CardError, SourceError

LAYOUT = {"seed": 5, "frames": 3, "height": 64, "width": 64, "sequences": [{"name": "room_0", "kind": "room"}]}
ONE = {"scenes": ["room_0"]}
# half a step of 2/255 in each component moves the tip of a unit vector by at most this
BITS_DEGREES = np.degrees(np.arcsin(np.sqrt(3) / 255))
VIEWS = ["room_0/point_0_view_0", "room_0/point_0_view_1", "room_0/point_1_view_0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("omnidata")
    write_replica_omnidata_layout(out, LAYOUT)
    return out


@pytest.fixture
def broken(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    return tmp_path / "data"


def truth(index):
    layout = LayoutSettings.parse(LAYOUT, "test")
    return omnidata_view(layout, layout.sequences[0], index)


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def test_views_are_single_frames_in_numeric_order(root):
    reader = ReplicaOmnidataReader(root, ONE)
    assert dict(reader.sequences()) == dict.fromkeys(VIEWS, (0,))
    assert reader.normal_source == "file"
    assert [len(scenes) for scenes in SPLITS.values()] == [10, 4, 4]


def test_views_match_the_exact_scene(root):
    reader = ReplicaOmnidataReader(root, ONE)
    focal = set()
    for index, name in enumerate(VIEWS):
        (frame,) = reader.read(name, [0])
        exact = truth(index)
        hidden = np.zeros((64, 64), bool)
        if index == 0:
            hidden[:8, :8] = hidden[32] = True
        np.testing.assert_array_equal(frame.valid, exact.valid & ~hidden)
        error = angle(frame.normal[frame.valid].astype(np.float64), exact.normal[frame.valid])
        assert error.max() < BITS_DEGREES
        there = exact.valid.copy()
        if index == 0:
            there[:8, :8] = False
        np.testing.assert_allclose(frame.depth[there], exact.depth[there], atol=0.5 / 512 + 1e-6)
        assert not frame.depth[~there].any()
        np.testing.assert_allclose(frame.intrinsics, exact.intrinsics, rtol=1e-12)
        np.testing.assert_allclose(frame.cam_to_world, exact.cam_to_world, atol=1e-12)
        assert (frame.flow, frame.occluded) == (None, None)
        focal.add(round(float(frame.intrinsics[0, 0]), 6))
    assert len(focal) == 3


def test_without_mask_and_pose(root):
    (frame,) = ReplicaOmnidataReader(root, {**ONE, "use_mask": False, "pose": False}).read(VIEWS[0], [0])
    assert frame.valid[32].all()
    assert frame.cam_to_world is None


def test_wrong_axes_and_units_are_noticed(root):
    with pytest.raises(SourceError, match="point away"):
        list(ReplicaOmnidataReader(root, {**ONE, "axes": "opengl"}).read(VIEWS[0], [0]))
    with pytest.raises(SourceError, match="median depth"):
        list(ReplicaOmnidataReader(root, {**ONE, "units_per_metre": 65535}).read(VIEWS[0], [0]))


def camera(change):
    def apply(root):
        path = root / "point_info/replica/room_0/point_0_view_0_domain_point_info.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return apply


def picture(domain, pixels):
    path = f"{domain}/replica/room_0/point_0_view_0_domain_{domain}.png"
    return lambda root: Image.fromarray(pixels).save(root / path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (camera(lambda v: v.pop("field_of_view_rads")), "field_of_view_rads"),
        (camera(lambda v: v.pop("camera_location")), "camera_location"),
        (camera(lambda v: v.update(field_of_view_rads=9.0)), "point_info"),
        (camera(lambda v: v.update(field_of_view_rads="wide")), "point_info"),
        (camera(lambda v: v.update(camera_rotation_final_quaternion=[0, 0, 0, 0])), "point_info"),
        (camera(lambda v: v.update(camera_location=[1, 2])), "point_info"),
        (picture("normal", np.zeros((10, 10, 3), np.uint8)), "domain_normal"),
        (picture("normal", np.zeros((64, 64), np.uint8)), "domain_normal"),
        (picture("depth_zbuffer", np.ones((64, 64), np.uint8)), "16 bits"),
        (picture("depth_zbuffer", np.ones((6, 64), np.uint16)), "depth_zbuffer"),
        (picture("mask_valid", np.ones((6, 64), np.uint8)), "mask_valid"),
        (lambda r: (r / "rgb/replica/room_0/point_0_view_0_domain_rgb.png").write_bytes(b"x"), "domain_rgb"),
        (lambda r: (r / "normal/replica/room_0/point_0_view_0_domain_normal.png").unlink(), "domain_normal"),
        (lambda r: shutil.rmtree(r / "mask_valid"), "mask_valid"),
        (lambda r: [p.unlink() for p in (r / "rgb/replica/room_0").iterdir()], "found none"),
    ],
)
def test_bad_sources(broken, change, message):
    change(broken)
    with pytest.raises(SourceError, match=message):
        list(ReplicaOmnidataReader(broken, ONE).read(VIEWS[0], [0]))


def test_bad_settings(root):
    with pytest.raises(CardError):
        ReplicaOmnidataReader(root, {"split": "some"})
    with pytest.raises(SourceError, match="apartment_0"):
        ReplicaOmnidataReader(root, {})
    with pytest.raises(SourceError, match="no sequence"):
        ReplicaOmnidataReader(root, ONE).fingerprint("room_0/point_9_view_9", [0])
