"""Cameras: intrinsics under resizing, cropping and mirroring, viewing rays, and points between frames.

Camera axes are OpenCV's (x right, y down, z forward). The centre of the top-left pixel is (0, 0), so the picture spans
[-0.5, W - 0.5] x [-0.5, H - 0.5]. An intrinsic matrix is K = [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Points = NDArray[np.float64]


def field_of_view_intrinsics(height: int, width: int, fov_degrees: float) -> Matrix:
    """Make the matrix of a centred pinhole camera with square pixels.

    Args:
        height: Picture height in pixels.
        width: Picture width in pixels.
        fov_degrees: Horizontal field of view from the left edge of the first column to the right edge of the last.

    Returns:
        (3, 3) float64 intrinsic matrix.

    Raises:
        ValueError: The field of view is not between 0 and 180 degrees.
    """
    if not 0 < fov_degrees < 180:
        raise ValueError(f"expected a horizontal field of view between 0 and 180 degrees, got {fov_degrees}")
    focal = 0.5 * width / math.tan(math.radians(fov_degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def scale_intrinsics(intrinsics: ArrayLike, scale_x: float, scale_y: float) -> Matrix:
    """Follow a resize that keeps the picture's outer edges: x' = (x + 0.5) * scale - 0.5.

    Args:
        intrinsics: (3, 3) intrinsic matrix.
        scale_x: New width over old width.
        scale_y: New height over old height.

    Returns:
        (3, 3) float64 matrix of the resized picture.
    """
    resize = np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5], [0, 0, 1]])
    return np.asarray(resize @ _matrix(intrinsics, 3))


def crop_intrinsics(intrinsics: ArrayLike, left: float, top: float) -> Matrix:
    """Follow a crop (or, with negative values, a padding).

    Args:
        intrinsics: (3, 3) intrinsic matrix.
        left: Columns removed at the left.
        top: Rows removed at the top.

    Returns:
        (3, 3) float64 matrix of the cropped picture.
    """
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], dtype=np.float64)
    return np.asarray(shift @ _matrix(intrinsics, 3))


def flip_intrinsics(intrinsics: ArrayLike, width: int) -> Matrix:
    """Follow a horizontal mirror of the picture; the scene is mirrored with it (points and normals negate x).

    Args:
        intrinsics: (3, 3) intrinsic matrix.
        width: Picture width in pixels.

    Returns:
        (3, 3) float64 matrix with a positive focal length: cx' = W - 1 - cx, and the skew changes sign.
    """
    mirror_pixels = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
    return np.asarray(mirror_pixels @ _matrix(intrinsics, 3) @ np.diag([-1.0, 1.0, 1.0]))


def pinhole_rays(intrinsics: ArrayLike, height: int, width: int) -> Points:
    """Give the viewing ray through each pixel centre of a pinhole camera.

    Args:
        intrinsics: (3, 3) intrinsic matrix.
        height: Picture height in pixels.
        width: Picture width in pixels.

    Returns:
        (H, W, 3) float64 rays scaled so that z = 1; a point is z-depth times its ray.

    Raises:
        ValueError: The matrix is not 3 x 3 or singular.
    """
    return _rays(_inverse(_matrix(intrinsics, 3)), np.arange(width), np.arange(height))


def hypersim_rays(m_cam_from_uv: ArrayLike, height: int, width: int) -> Points:
    """Give the viewing rays of a Hypersim scene, whose camera is in general not a pinhole with square pixels.

    Hypersim's ``M_cam_from_uv`` takes (u, v, 1) to a ray in its right-up-back axes, where u runs from -1 to 1 left to
    right and v from 1 to -1 top to bottom across the picture's outer edges (metadata_camera_parameters.csv of
    apple/ml-hypersim). Over half of the public scenes differ from the usual pinhole by more than 0.1 degrees.

    Args:
        m_cam_from_uv: (3, 3) matrix of the scene.
        height: Picture height in pixels.
        width: Picture width in pixels.

    Returns:
        (H, W, 3) float64 rays in OpenCV axes, scaled so that z = 1.

    Raises:
        ValueError: The matrix is not 3 x 3, or a ray does not point forward.
    """
    opencv_from_uv = np.diag([1.0, -1.0, -1.0]) @ _matrix(m_cam_from_uv, 3)
    u = (2 * np.arange(width) + 1) / width - 1
    v = 1 - (2 * np.arange(height) + 1) / height
    return _rays(opencv_from_uv, u, v)


def depth_from_distance(distance: ArrayLike, rays: Points) -> NDArray[np.float64]:
    """Turn Euclidean distance from the optical centre (as Hypersim stores it) into z-depth.

    Args:
        distance: (H, W) distance in metres.
        rays: (H, W, 3) rays with z = 1.

    Returns:
        (H, W) float64 z-depth in metres; unknown (0, NaN) stays as it was.
    """
    return np.asarray(np.asarray(distance, dtype=np.float64) / np.linalg.norm(rays, axis=-1))


def unproject(depth: ArrayLike, rays: Points) -> Points:
    """Place each pixel in camera space.

    Args:
        depth: (H, W) z-depth in metres.
        rays: (H, W, 3) rays with z = 1.

    Returns:
        (H, W, 3) float64 points in metres; (0, 0, 0) where the depth is 0.

    Raises:
        ValueError: Depth and rays differ in size.
    """
    values = np.asarray(depth, dtype=np.float64)
    if rays.shape != (*values.shape, 3):
        raise ValueError(f"expected rays of shape {(*values.shape, 3)} for this depth, got {rays.shape}")
    return np.asarray(values[..., None] * rays)


def project(points: ArrayLike, intrinsics: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project camera-space points to pixels.

    Args:
        points: (..., 3) points in metres.
        intrinsics: (3, 3) intrinsic matrix.

    Returns:
        Pixels (..., 2) as (x, y), and z (...) in metres, both float64. Pixels are NaN where z is not positive: such a
        point is not in front of the camera.
    """
    places = np.asarray(points, dtype=np.float64)
    z = places[..., 2]
    safe = np.where(z > 0, z, np.nan)
    # divide before K is applied, so that a point on the axis lands on (cx, cy) exactly
    flat = places[..., :2] / safe[..., None]
    matrix = _matrix(intrinsics, 3)
    return np.asarray(flat @ matrix[:2, :2].T + matrix[:2, 2]), z


def transform_points(points: ArrayLike, transform: ArrayLike) -> Points:
    """Apply a rigid (or any affine) 4 x 4 transform.

    Args:
        points: (..., 3) points.
        transform: (4, 4) matrix with last row (0, 0, 0, 1).

    Returns:
        (..., 3) float64 points.
    """
    matrix = _matrix(transform, 4)
    return np.asarray(np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3])


def invert_pose(pose: ArrayLike) -> Matrix:
    """Invert a rigid pose: camera-to-world becomes world-to-camera and the other way round.

    Args:
        pose: (4, 4) rotation and translation.

    Returns:
        (4, 4) float64 inverse.

    Raises:
        ValueError: The upper-left block is not a rotation to 1e-3 (scaled, sheared or mirrored poses must be cleaned
            first).
    """
    matrix = _matrix(pose, 4)
    rotation = matrix[:3, :3]
    deviation = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if not (deviation < 1e-3 and np.linalg.det(rotation) > 0):
        raise ValueError(f"expected a rotation and translation, got {matrix.tolist()}")
    return _inverse(matrix)


def _rays(ray_from_image: Matrix, x: NDArray[np.generic], y: NDArray[np.generic]) -> Points:
    image = np.empty((len(y), len(x), 3))
    image[..., 0] = x
    image[..., 1] = y[:, None]
    image[..., 2] = 1
    rays = image @ ray_from_image.T
    if not np.all(rays[..., 2] > 0):
        raise ValueError("expected rays that point forward (z > 0) at every pixel; check the matrix and its axes")
    return np.asarray(rays / rays[..., 2:])


def _matrix(values: ArrayLike, size: int) -> Matrix:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.shape != (size, size):
        raise ValueError(f"expected a {size} x {size} matrix, got shape {matrix.shape}")
    return matrix


def _inverse(matrix: Matrix) -> Matrix:
    try:
        return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"expected an invertible matrix, got {matrix.tolist()}") from error
