"""Real clips with depth and poses, for ``test_temporal.py``; looked for beside the checkout, as the tests do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ncbench.evaluators.view import View
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.plane_fit import normals_by_plane_fit

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "real"
ICL = REAL / "icl_nuim_slambook"
REDWOOD = REAL / "redwood_livingroom1"

# ICL-NUIM's camera has y up, in a world that is mirrored along with it: mirroring both gives a rotation again
_MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


def icl_views() -> list[View]:
    """Frames 5 and 1 of five: the pair of neighbours that overlaps most."""
    k = np.array([[481.2, 0, 319.5], [0, 480.0, 239.5], [0, 0, 1]])
    lines = (ICL / "pose.txt").read_text().splitlines()
    views = []
    for index, number in enumerate((5, 1)):
        values = np.array(lines[number - 1].split(), float)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = Rotation.from_quat(values[3:]).as_matrix(), values[:3]
        pose = _MIRROR @ pose @ _MIRROR
        files = (ICL / "color" / f"{number}.png", ICL / "depth" / f"{number}.png")
        views.append(_view("icl", index, *files, 1 / 5000, k, pose))
    return views


def redwood_views(frames: range) -> list[View]:
    """Frames of the living room; its poses are estimates."""
    k = np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]])
    lines = (REDWOOD / "trajectory_open3d_estimate.log").read_text().splitlines()
    views = []
    for index in frames:
        pose = np.array([line.split() for line in lines[5 * index + 1 : 5 * index + 5]], float)
        files = (REDWOOD / "image" / f"{index:05d}.jpg", REDWOOD / "depth" / f"{index:05d}.png")
        views.append(_view("redwood", index, *files, 1 / 1000, k, pose))
    return views


def _view(name, index, picture, depth_file, scale, k, pose) -> View:
    depth = (cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED) * scale).astype(np.float32)
    normal, valid = normals_by_plane_fit(depth, pinhole_rays(k, *depth.shape))
    image = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
    return View(name, index, normal, valid, image, depth, intrinsics=k, cam_to_world=pose)
