"""Colours of normals and errors, and the size of pictures."""

import numpy as np

from ncbench.reports.pictures import errors_to_rgb, fit_width, normals_to_rgb, png_bytes


def test_normals_are_coloured_as_papers_do():
    right, up, camera = [1, 0, 0], [0, -1, 0], [0, 0, -1]
    colours = normals_to_rgb(np.array([[right, up, camera, [0, 0, 0]]], np.float32))[0]
    np.testing.assert_array_equal(colours, [[255, 128, 128], [128, 255, 128], [128, 128, 255], [200, 200, 200]])


def test_error_colours_grow_brighter_and_stop_at_the_limit():
    row = errors_to_rgb(np.array([[0.0, 20.0, 40.0, 60.0, 180.0, np.nan]]))[0].astype(int)
    brightness = row.sum(1)
    assert (np.diff(brightness[:4]) > 0).all()
    np.testing.assert_array_equal(row[3], row[4])
    np.testing.assert_array_equal(row[5], [200, 200, 200])


def test_pictures_shrink_but_never_grow():
    assert fit_width(np.zeros((50, 100, 3), np.uint8), 40).shape == (20, 40, 3)
    small = np.zeros((5, 10, 3), np.uint8)
    assert fit_width(small, 40) is small
    assert png_bytes(small) == png_bytes(small.copy())
