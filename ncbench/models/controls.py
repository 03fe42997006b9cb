"""Controls: predictors with known errors, which prove that a metric measures what it says.

All but ``Frontal`` are made from the ground truth, so their error is known in advance: whoever ranks below
``Frontal`` has learned nothing, and whoever ranks above ``DepthOracle`` does better than a second method on the
true depth. Where the truth (or the method) has no direction, controls answer with the frontal normal.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from ncbench.datasets.readers.depth_normals import PlaneFit
from ncbench.errors import ModelError
from ncbench.geometry.cameras import pinhole_rays
from ncbench.geometry.normals_from_depth import normals_by_cross_product
from ncbench.geometry.plane_fit import normals_by_plane_fit
from ncbench.models.base import Clip, NormalModel, Normals, Truth
from ncbench.settings import Settings

FRONTAL = np.array([0.0, 0.0, -1.0], np.float32)


class NoSettings(Settings):
    """For controls without a knob."""


class Frontal(NormalModel):
    """Every pixel faces the camera: (0, 0, -1)."""

    per_frame = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        NoSettings.parse(settings, where="control Frontal, settings")

    def predict(self, clip: Clip) -> Normals:
        """Answer the constant."""
        return np.broadcast_to(FRONTAL, (*clip.images.shape[:3], 3)).copy()


class DepthOracleSettings(Settings):
    """Which method turns the true depth into normals."""

    method: Literal["other", "plane_fit", "cross_product"] = "other"
    plane_fit: PlaneFit = PlaneFit()


class DepthOracle(NormalModel):
    """Normals from the true depth, by another method than the ground truth's: what perfect depth is worth."""

    per_frame = True
    needs_truth: ClassVar[bool] = True
    needs_intrinsics: bool = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = DepthOracleSettings.parse(settings, where="control DepthOracle, settings")

    def predict(self, clip: Clip) -> Normals:
        """Derive normals frame by frame."""
        truth = _truth(clip)
        if truth.depth is None or clip.intrinsics is None:
            raise ModelError(f"control DepthOracle: sequence '{clip.sequence}' has no depth or no intrinsics")
        height, width = truth.valid.shape[1:]
        method = self.settings.method
        if method == "other":
            method = "cross_product" if truth.normal_source == "plane_fit" else "plane_fit"
        maps = []
        for depth, intrinsics in zip(truth.depth, clip.intrinsics, strict=True):
            rays = pinhole_rays(intrinsics, height, width)
            if method == "cross_product":
                normal, valid = normals_by_cross_product(depth, rays)
            else:
                normal, valid = normals_by_plane_fit(depth, rays, **self.settings.plane_fit.model_dump())
            maps.append(np.where(valid[..., None], normal, FRONTAL))
        return np.stack(maps)


class RotationSettings(Settings):
    """A rotation of the true normals."""

    degrees: float = Field(gt=0, lt=180)
    seed: int = 0


class Flicker(NormalModel):
    """The truth, each frame turned as a whole about an axis drawn anew: temporal noise without spatial noise."""

    per_frame = True
    needs_truth: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = RotationSettings.parse(settings, where="control Flicker, settings")

    def predict(self, clip: Clip) -> Normals:
        """Rotate each frame by its own axis, drawn from (seed, sequence, frame) alone."""
        filled = _filled_truth(clip)
        turned = []
        for frame, normal in zip(clip.frames, filled, strict=True):
            axis = _random_axis(self.settings.seed, clip.sequence, frame)
            turned.append(_rotate(normal, axis, self.settings.degrees))
        return np.stack(turned)


class Bias(NormalModel):
    """The truth, every frame turned by the same rotation: a steady error without flicker."""

    per_frame = True
    needs_truth: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = RotationSettings.parse(settings, where="control Bias, settings")

    def predict(self, clip: Clip) -> Normals:
        """Rotate all frames about one axis, drawn from the seed."""
        axis = _random_axis(self.settings.seed, "", 0)
        return _rotate(_filled_truth(clip), axis, self.settings.degrees)


class BlurSettings(Settings):
    """How far detail is smeared."""

    sigma_pixels: float = Field(gt=0)


class Blur(NormalModel):
    """The truth, smoothed by a Gaussian over valid pixels and made unit again: steady, but without detail."""

    per_frame = True
    needs_truth: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = BlurSettings.parse(settings, where="control Blur, settings")

    def predict(self, clip: Clip) -> Normals:
        """Smooth each frame; invalid pixels have no weight."""
        truth = _truth(clip)
        sigma = (0, self.settings.sigma_pixels, self.settings.sigma_pixels, 0)
        smooth = gaussian_filter(np.where(truth.valid[..., None], truth.normal, 0.0).astype(np.float64), sigma)
        length = np.linalg.norm(smooth, axis=-1, keepdims=True)
        # far from any valid pixel the sum fades to nothing: no direction left
        return np.where(length > 1e-6, smooth / np.maximum(length, 1e-6), FRONTAL).astype(np.float32)


class Frozen(NormalModel):
    """The truth of the first frame, repeated: perfectly steady and increasingly wrong."""

    needs_truth: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        NoSettings.parse(settings, where="control Frozen, settings")

    def predict(self, clip: Clip) -> Normals:
        """Repeat the clip's own first frame."""
        return next(self.stream([clip]))

    def stream(self, clips: Iterable[Clip]) -> Iterator[Normals]:
        """Repeat the sequence's first frame."""
        first: Normals | None = None
        for clip in clips:
            if first is None:
                first = _filled_truth(clip)[0]
            yield np.broadcast_to(first, (len(clip.frames), *first.shape)).copy()


def _truth(clip: Clip) -> Truth:
    if clip.truth is None:
        raise ModelError(f"sequence '{clip.sequence}': this control reads the ground truth, and the clip carries none")
    return clip.truth


def _filled_truth(clip: Clip) -> Normals:
    truth = _truth(clip)
    return np.where(truth.valid[..., None], truth.normal, FRONTAL)


def _random_axis(seed: int, sequence: str, frame: int) -> NDArray[np.float64]:
    """Draw a direction uniformly on the sphere, as a pure function of its arguments."""
    # crc32, not hash(): Python's string hash changes from process to process
    rng = np.random.default_rng([seed, zlib.crc32(sequence.encode()), frame])
    axis: NDArray[np.float64] = rng.normal(size=3)
    return axis / np.linalg.norm(axis)


def _rotate(normals: Normals, axis: NDArray[np.float64], degrees: float) -> Normals:
    matrix: NDArray[np.float64] = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
    return (normals @ matrix.T).astype(np.float32)
