"""Predictions of normals as 8-bit pictures, of two kinds that are unlike to decode."""

import cv2
import numpy as np

HEIGHT, WIDTH = 480, 640
KINDS = ("noisy", "smooth")


def bumpy_normals(rng):
    """(H, W, 3) float32: a bumpy surface that faces the camera, with noise like that of a real map."""
    heights = cv2.resize(rng.normal(size=(12, 16)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 20
    slope_y, slope_x = np.gradient(heights + rng.normal(size=heights.shape) * 0.05)
    normal = np.stack([slope_x, slope_y, -np.ones_like(slope_x)], -1)
    return (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)


def prediction(kind, truth, rng):
    """(H, W, 3) uint8: off by 0.1 in every pixel (``noisy``), or blurred and bent, as networks answer (``smooth``)."""
    if kind == "noisy":
        normal = truth + rng.normal(size=truth.shape).astype(np.float32) * 0.1
    else:
        bent = cv2.resize(rng.normal(size=(6, 8, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        normal = cv2.GaussianBlur(truth, (0, 0), 2) + bent * 0.15
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.round((normal + 1) * 127.5).astype(np.uint8)
