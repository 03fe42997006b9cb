"""MatrixCity's two camera files give the same poses; every other form is refused by name."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ncbench.datasets.formats.matrixcity_cameras import POSE, TRANSFORMS, read_cameras
from ncbench.errors import SourceError

TURN = Rotation.from_euler("xyz", [0.3, -0.5, 1.0]).as_matrix()
PLACE = np.array([123.0, -45.0, 6.7])


def matrix(rotation, place, last):
    whole = np.zeros((4, 4))
    whole[:3, :3], whole[:3, 3], whole[3, 3] = rotation, place, last
    return whole.tolist()


def write(path, frames, **values):
    path.write_text(json.dumps({"camera_angle_x": 0.785, "frames": frames} | values))
    return path


def test_both_forms_give_one_pose_in_metres(tmp_path):
    first = write(tmp_path / "a.json", [{"frame_index": 7, "rot_mat": matrix(TURN / 100, PLACE, 0.01)}])
    entry = {"file_path": "../train/b/0007.png", "transform_matrix": matrix(TURN, PLACE / 100, 1)}
    second = write(tmp_path / "b.json", [entry])
    for path, form in ((first, TRANSFORMS), (second, POSE)):
        cameras = read_cameras(path, form)
        assert cameras.field_of_view == 0.785
        assert list(cameras.poses) == [7]
        np.testing.assert_allclose(cameras.poses[7][:3, :3], TURN, atol=1e-12)
        np.testing.assert_allclose(cameras.poses[7][:3, 3], PLACE, atol=1e-12)
        np.testing.assert_array_equal(cameras.poses[7][3], [0, 0, 0, 1])


GOOD = {"frame_index": 0, "rot_mat": matrix(TURN / 100, PLACE, 0.01)}
BAD = {
    "scaled by 0.01, found a scale of 1": [{"frame_index": 0, "rot_mat": matrix(TURN, PLACE, 1)}],
    "frame 0 comes twice": [GOOD, GOOD],
    "rot_mat": [{"frame_index": 0, "transform_matrix": matrix(TURN, PLACE, 1)}],
    "found shape": [{"frame_index": 0, "rot_mat": [[1, 2], [3, 4]]}],
    "rotation and translation": [{"frame_index": 0, "rot_mat": matrix(TURN @ np.diag([1, 1, -1]) / 100, PLACE, 1)}],
    "finite 4 x 4": [{"frame_index": 0, "rot_mat": matrix(TURN / 100, [np.nan, 0, 0], 1)}],
}


@pytest.mark.parametrize("message", BAD)
def test_another_form_is_refused(message, tmp_path):
    path = write(tmp_path / "transforms.json", BAD[message])
    with pytest.raises(SourceError, match=message) as caught:
        read_cameras(path, TRANSFORMS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("angle", [0.0, 4.0, "wide", None])
def test_an_absurd_field_of_view_is_refused(angle, tmp_path):
    with pytest.raises(SourceError, match="camera_angle_x"):
        read_cameras(write(tmp_path / "t.json", [GOOD], camera_angle_x=angle), TRANSFORMS)


@settings(max_examples=40, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), st.just(b"[" * 5_000)))
def test_any_bytes_end_in_a_source_error(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "transforms.json"
    path.write_bytes(content)
    with pytest.raises(SourceError):
        read_cameras(path, TRANSFORMS)
    with pytest.raises(SourceError, match="cannot be read"):
        read_cameras(path.with_name("none.json"), TRANSFORMS)
