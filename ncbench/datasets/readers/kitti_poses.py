"""Camera poses of KITTI's raw drives, from the GPS and inertial unit that rode along.

As the raw data's development kit computes them (Geiger et al., Vision meets robotics: the KITTI dataset, IJRR 2013):
latitude and longitude by a Mercator projection that is true to scale at the drive's first latitude; the world is the
unit's own frame at the drive's first measurement (x forward, y left, z up). Absolute accuracy is that of the GPS,
centimetres at best.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ncbench.datasets.formats.kitti import Oxts, read_camera_from_camera0, read_oxts, read_rigid_motion
from ncbench.datasets.frame import Matrix
from ncbench.geometry.cameras import invert_pose

EARTH_RADIUS = 6_378_137.0
"""Metres, of the sphere that the development kit projects."""


class DrivePoses:
    """Poses of one camera along one drive.

    Args:
        date: Folder of the day, which holds the calibration.
        drive: Folder of the drive, which holds ``oxts/data``.
        camera: 0 to 3.
    """

    def __init__(self, date: Path, drive: Path, camera: int) -> None:
        names = ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt", "calib_imu_to_velo.txt")
        self.calibration = tuple(date / name for name in names)
        self._measured = drive / "oxts" / "data"
        self._camera = camera

    def file(self, number: int) -> Path:
        """The measurement of a frame; that of frame 0 also fixes the world."""
        return self._measured / f"{number:010d}.txt"

    def camera_to_world(self, numbers: list[int]) -> dict[int, Matrix]:
        """Read the poses of some frames.

        Args:
            numbers: Frame numbers.

        Returns:
            Number -> (4, 4) float64, metres.

        Raises:
            SourceError: A file is missing, damaged or holds other numbers.
        """
        cam_to_cam, velo_to_cam, imu_to_velo = self.calibration
        imu_to_camera = (
            read_camera_from_camera0(cam_to_cam, self._camera)
            @ read_rigid_motion(velo_to_cam)
            @ read_rigid_motion(imu_to_velo)
        )
        camera_to_imu = invert_pose(imu_to_camera)
        first = read_oxts(self.file(0))
        world_from_earth = invert_pose(imu_to_earth(first, first.latitude))
        return {
            number: world_from_earth @ imu_to_earth(read_oxts(self.file(number)), first.latitude) @ camera_to_imu
            for number in numbers
        }


def imu_to_earth(measured: Oxts, true_latitude: float) -> Matrix:
    """Place the inertial unit on the map.

    Args:
        measured: Where it is and how it is turned.
        true_latitude: Degrees; where the map is true to scale.

    Returns:
        (4, 4) float64, metres; the map has x east, y north, z up.
    """
    scale = math.cos(math.radians(true_latitude)) * EARTH_RADIUS
    pose = np.eye(4)
    turns = [measured.yaw, measured.pitch, measured.roll]
    pose[:3, :3] = Rotation.from_euler("ZYX", turns).as_matrix()  # turned by yaw first, about axes that turn along
    pose[:3, 3] = [
        scale * math.radians(measured.longitude),
        scale * math.log(math.tan(math.radians(90 + measured.latitude) / 2)),
        measured.altitude,
    ]
    return pose
