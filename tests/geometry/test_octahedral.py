import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.geometry.octahedral import INVALID_CODE, decode_octahedral, encode_octahedral

WORST = 0.004  # degrees, the design's bound
REACHED = 0.0026  # what rounding on the triangular lattice gives: its covering radius is 0.00247


def degrees_between(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def round_trip_error(normals):
    decoded = decode_octahedral(encode_octahedral(normals))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(decoded.astype(np.float64), axis=-1), 1, atol=3e-7)
    return degrees_between(decoded, normals)


near_zero = st.one_of(st.just(0.0), st.floats(-1e-4, 1e-4))
component = st.one_of(st.floats(-1, 1), near_zero, st.sampled_from([1.0, -1.0]))


@settings(max_examples=500, deadline=None)
@given(st.tuples(component, component, component).filter(lambda v: max(map(abs, v)) > 1e-3))
def test_any_direction_comes_back(vector):
    direction = np.array(vector)
    assert round_trip_error(direction) < REACHED < WORST
    assert round_trip_error(direction.astype(np.float32)) < REACHED


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 2 * np.pi), st.floats(-1e-5, 1e-5))
def test_seams(angle, off):
    c, s = np.cos(angle), np.sin(angle)
    seams = np.array([[c, s, off], [c, off, s], [off, c, s]])  # the planes between the octahedron's faces
    assert round_trip_error(seams).max() < REACHED


def test_dense_random_directions():
    directions = np.random.default_rng(5).normal(size=(300_000, 3))
    error = round_trip_error(directions)
    assert error.max() < REACHED
    assert error.mean() < 0.00125


def test_axes_are_exact_and_the_wall_is_the_centre():
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    codes = encode_octahedral(axes)
    np.testing.assert_array_equal(decode_octahedral(codes), axes)
    assert codes[5].tolist() == [32767, 32767]
    assert codes.max() < INVALID_CODE


def test_codes_are_those_of_the_definition():
    """Against the textbook projection in float64, where rounding leaves no choice (nearest corner of the square)."""
    directions = np.random.default_rng(2).normal(size=(20_000, 3))
    p = directions / np.abs(directions).sum(-1, keepdims=True)
    far = p[:, 2] > 0
    folded = (1 - np.abs(p[:, 1::-1])) * np.where(p[:, :2] < 0, -1, 1)
    position = np.where(far[:, None], folded, p[:, :2]) * 32767 + 32767
    assert np.abs(encode_octahedral(directions).astype(float) - position).max() < 1.0


def test_neighbouring_facing_normals_have_neighbouring_codes():
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    tilt = np.radians(30)
    ring = np.stack([np.sin(tilt) * np.cos(angle), np.sin(tilt) * np.sin(angle), -np.cos(tilt) * np.ones(5000)], -1)
    codes = encode_octahedral(ring).astype(int)
    assert np.abs(codes - np.roll(codes, 1, axis=0)).max() < 40


@pytest.mark.parametrize("bad", [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-38, 3e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_direction_is_invalid(bad, dtype):
    vectors = np.array([[bad, 0, 0], [0, bad, 0], [0, 0, bad], [bad, bad, bad]], dtype)
    codes = encode_octahedral(vectors)
    assert (codes == INVALID_CODE).all()
    assert (decode_octahedral(codes) == 0).all()


def test_one_bad_component_spoils_the_vector():
    vectors = np.array([[np.nan, 0, -1], [0, np.inf, -1], [1, -np.inf, np.nan]])
    assert (encode_octahedral(vectors) == INVALID_CODE).all()


def test_length_does_not_matter():
    direction = np.array([0.3, -0.5, -0.81])
    lengths = np.array([1e-20, 1e-3, 1, 255, 1e20])[:, None]
    assert len(np.unique(encode_octahedral(direction * lengths), axis=0)) == 1


def test_every_code_decodes_to_unit_or_zero():
    grid = np.r_[0:40, 32747:32787, 65496:65536].astype(np.uint16)
    codes = np.stack(np.meshgrid(grid, grid), -1)
    length = np.linalg.norm(decode_octahedral(codes).astype(np.float64), axis=-1)
    invalid = codes[..., 0] == INVALID_CODE
    np.testing.assert_allclose(length[~invalid], 1, atol=3e-7)
    assert (length[invalid] == 0).all()


def test_shapes_and_strides():
    normals = np.random.default_rng(0).normal(size=(6, 8, 3)).astype(np.float32)
    codes = encode_octahedral(normals)
    assert codes.shape == (6, 8, 2)
    np.testing.assert_array_equal(encode_octahedral(normals[::2, ::-1]), codes[::2, ::-1])
    np.testing.assert_array_equal(decode_octahedral(np.ascontiguousarray(codes)), decode_octahedral(codes))
    assert encode_octahedral(np.empty((0, 3))).shape == (0, 2)


@pytest.mark.parametrize("shape", [(), (2,), (3, 4)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match="shape"):
        encode_octahedral(np.ones(shape))
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\)"):
        decode_octahedral(np.ones((*shape, 3), np.uint16))


def test_codes_must_be_uint16():
    with pytest.raises(ValueError, match="uint16"):
        decode_octahedral(np.ones((4, 2), np.int32))
