from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbench.datasets.mini.rooms import make_scene
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.store import open_store
from ncbench.errors import CardError
from ncbench.geometry.cameras import pinhole_rays, unproject
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.loader_card import Resize
from ncbench.loaders.maps import Maps
from ncbench.loaders.spatial import Box, crop_maps, flip_maps, resize_maps, resized_size


def maps_of(folder, row):
    frame = open_store(folder)[row]
    names = ("normal", "valid", "depth", "flow", "occluded", "intrinsics", "cam_to_world")
    return Maps(image=decode_image(frame.image), **{name: getattr(frame, name) for name in names})


def disagreement(maps):
    """Median angle in degrees between stored normals and those that follow from depth and camera.

    Over surfaces that face sideways, where a mirrored sign would show; the median is not about edges.
    """
    derived, known = normals_by_cross_product(maps.depth, pinhole_rays(maps.intrinsics, *maps.size))
    sideways = known & maps.valid & (abs(maps.normal[..., 0]) > 0.2)
    cross = np.linalg.norm(np.cross(derived, maps.normal), axis=-1)
    angle = np.degrees(np.arctan2(cross, (derived * maps.normal).sum(axis=-1)))[sideways]
    assert len(angle) > 50
    return np.median(angle)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.booleans(), st.integers(0, 10), st.integers(0, 12), st.integers(0, 3))
def test_flips_and_crops_keep_depth_derived_normals_equal_to_stored_ones(moving_folder, row, flip, top, left, less):
    changed = crop_maps(maps_of(moving_folder, row), Box(top, left, 30 - less, 40 - less))
    assert disagreement(flip_maps(changed) if flip else changed) < 0.1


def test_a_wrong_flip_would_be_noticed(moving_folder):
    flipped = flip_maps(maps_of(moving_folder, 0))
    wrong = replace(flipped, normal=flipped.normal * np.array([-1, 1, 1], np.float32))
    assert disagreement(flipped) < 0.1 < 20 < disagreement(wrong)


@pytest.mark.parametrize("size", [(36, 48), (72, 96)])
def test_the_camera_of_a_resized_picture_is_the_one_that_would_have_taken_it(moving_folder, size):
    resized = resize_maps(maps_of(moving_folder, 0), size)
    assert resized.size == size
    np.testing.assert_allclose(resized.intrinsics, make_scene("room", 4, 1, *size).intrinsics, atol=1e-9)
    again = resize_maps(resized, (48, 64))
    np.testing.assert_allclose(again.intrinsics, maps_of(moving_folder, 0).intrinsics, atol=1e-9)


@pytest.mark.parametrize("steps", [["flip"], ["crop"], ["resize"], ["resize", "crop", "flip"]])
def test_flow_and_poses_tell_the_same_story_after_every_change(moving_folder, steps):
    """Static points move between two frames as the poses say; the flow column says the same."""

    def change(maps):
        for step in steps:
            if step == "flip":
                maps = flip_maps(maps)
            elif step == "crop":
                maps = crop_maps(maps, Box(3, 5, 30, 40))
            else:
                maps = resize_maps(maps, (96, 128))
        return maps

    first, second = (change(maps_of(moving_folder, row)) for row in (0, 1))
    points = unproject(first.depth, pinhole_rays(first.intrinsics, *first.size))
    world = points @ first.cam_to_world[:3, :3].T + first.cam_to_world[:3, 3]
    there = (world - second.cam_to_world[:3, 3]) @ second.cam_to_world[:3, :3]
    pixels = there @ second.intrinsics.T
    target = pixels[..., :2] / pixels[..., 2:]
    y, x = np.indices(first.size)
    moved = target - np.stack([x, y], axis=-1)
    known = np.isfinite(first.flow).all(axis=-1) & ~first.occluded
    off = np.linalg.norm(moved - first.flow, axis=-1)[known]
    limit = 0.02 if "resize" not in steps else 0.3  # a resized flow is a source pixel's, half a pixel beside
    assert np.median(off) < limit  # moving bodies are few
    assert np.linalg.det(first.cam_to_world[:3, :3]) == pytest.approx(1)


def test_everything_is_mirrored_and_twice_is_nothing(moving_folder):
    maps = maps_of(moving_folder, 3)
    flipped = flip_maps(maps)
    np.testing.assert_array_equal(flipped.image[:, 0], maps.image[:, -1])
    np.testing.assert_array_equal(flipped.normal[5, 0], maps.normal[5, -1] * np.array([-1, 1, 1]))
    np.testing.assert_array_equal(flipped.flow[5, 0], maps.flow[5, -1] * np.array([-1, 1]))
    again = flip_maps(flipped)
    for name in Maps.__slots__:
        np.testing.assert_allclose(getattr(again, name), getattr(maps, name), atol=1e-12)


def test_resized_pictures_are_means_of_what_they_cover():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    maps = Maps(image, np.zeros((6, 8, 3), np.float32), np.zeros((6, 8), bool))
    expected = image.reshape(3, 2, 4, 2, 3).astype(np.float64).mean(axis=(1, 3))
    assert abs(resize_maps(maps, (3, 4)).image - expected).max() <= 0.5
    assert resize_maps(maps, (6, 8)) is maps


def test_sizes():
    assert resized_size((680, 1200), None) == (680, 1200)
    assert resized_size((680, 1200), Resize(short_edge=576, multiple=64)) == (576, 1024)
    assert resized_size((1200, 680), Resize(short_edge=576)) == (1016, 576)
    assert resized_size((100, 50), Resize(size=(32, 48)), 1.0) == (32, 48)
    assert resized_size((100, 200), Resize(short_edge=50), 1.5) == (75, 150)
    with pytest.raises(CardError, match="either short_edge or size"):
        Resize.parse({}, "here")


def test_a_window_must_lie_within_the_picture(moving_folder):
    with pytest.raises(ValueError, match="within 48 x 64"):
        crop_maps(maps_of(moving_folder, 0), Box(20, 0, 30, 10))
