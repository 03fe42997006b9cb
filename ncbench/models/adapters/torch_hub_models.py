"""What each published torch.hub model is called with, is given, and answers; without torch until one runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ncbench.models.base import Clip, Normals

if TYPE_CHECKING:
    import torch

    from ncbench.models.adapters.torch_hub import TorchHubSettings

Run = Callable[[Any, Clip, "torch.device", "TorchHubSettings"], Normals]

_METRIC3D_SIZE = (616, 1064)
_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of pixels in 0..255
_IMAGENET_STD = (58.395, 57.12, 57.375)
_OMNIDATA_SIDE, _OMNIDATA_MULTIPLE = 384, 32


@dataclass(frozen=True)
class Published:
    """One entry point of one repository.

    Attributes:
        repository: On GitHub.
        entry: Of its ``hubconf.py``.
        run: Model, clip, device, settings -> (T, H, W, 3) normals in the model's own axes.
        arguments: Of the entry point; ``{folder}`` and ``{device}`` are filled in.
    """

    repository: str
    entry: str
    run: Run
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _pixels(clip: Clip, device: torch.device) -> torch.Tensor:
    """(T, 3, H, W) float32 in 0..1."""
    import torch

    return torch.from_numpy(clip.images).to(device).permute(0, 3, 1, 2).float() / 255


def _maps(normals: torch.Tensor) -> Normals:
    found: Normals = normals.detach().permute(0, 2, 3, 1).float().cpu().numpy()
    return found


def longest_side_intrinsics(height: int, width: int, fov_degrees: float) -> NDArray[np.float64]:
    """Make a pinhole matrix as DSINE does without intrinsics: the field of view spans the longer side.

    Args:
        height: Of the frame in pixels.
        width: Of the frame in pixels.
        fov_degrees: Along the longer side.

    Returns:
        (3, 3); the centre of the top-left pixel is (0, 0).
    """
    focal = max(height, width) / 2 / np.tan(np.radians(fov_degrees) / 2)
    return np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])


def run_dsine(model: Any, clip: Clip, device: torch.device, settings: TorchHubSettings) -> Normals:  # noqa: ANN401
    """``Predictor.infer_tensor`` of DSINE-hub: pictures in 0..1, intrinsics of their pixels; it pads by itself."""
    import torch

    count, height, width = clip.images.shape[:3]
    matrices = clip.intrinsics
    if matrices is None:
        matrices = np.repeat(longest_side_intrinsics(height, width, settings.fov_degrees)[None], count, axis=0)
    # a copy: it moves the principal point in place
    intrinsics = torch.tensor(matrices, dtype=torch.float32, device=device)
    return _maps(model.infer_tensor(_pixels(clip, device), intrins=intrinsics))


def run_metric3d(model: Any, clip: Clip, device: torch.device, settings: TorchHubSettings) -> Normals:  # noqa: ANN401, ARG001
    """``model.inference`` of Metric3D v2: scaled in proportion into 616 x 1064, the rest in ImageNet's mean colour."""
    import torch
    from torch.nn import functional

    height, width = clip.images.shape[1:3]
    scale = min(_METRIC3D_SIZE[0] / height, _METRIC3D_SIZE[1] / width)
    inner = max(1, int(height * scale)), max(1, int(width * scale))
    top, left = (_METRIC3D_SIZE[0] - inner[0]) // 2, (_METRIC3D_SIZE[1] - inner[1]) // 2
    resized = np.stack([cv2.resize(image, inner[::-1], interpolation=cv2.INTER_LINEAR) for image in clip.images])
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_STD))
    pixels = (torch.from_numpy(resized).to(device).permute(0, 3, 1, 2).float() - mean) / std
    below, right = _METRIC3D_SIZE[0] - inner[0] - top, _METRIC3D_SIZE[1] - inner[1] - left
    padded = functional.pad(pixels, (left, right, top, below))  # zero is the mean colour
    normals = model.inference({"input": padded})[2]["prediction_normal"][:, :3]
    normals = normals[:, :, top : top + inner[0], left : left + inner[1]].float()
    return _maps(functional.interpolate(normals, (height, width), mode="bilinear"))


def run_omnidata(model: Any, clip: Clip, device: torch.device, settings: TorchHubSettings) -> Normals:  # noqa: ANN401, ARG001
    """Omnidata's DPT: pictures in 0..1, answers in 0..1.

    Its demo scales the shorter side to 384 and crops the middle. Here the whole frame stays: its longer side is rounded
    to the multiple of 32 that the network needs, so that square frames are treated as in the demo.
    """
    from torch.nn import functional

    height, width = clip.images.shape[1:3]
    scale = _OMNIDATA_SIDE / min(height, width)
    size = [max(1, round(side * scale / _OMNIDATA_MULTIPLE)) * _OMNIDATA_MULTIPLE for side in (height, width)]
    pixels = functional.interpolate(_pixels(clip, device), size, mode="bilinear", antialias=True)
    normals = model(pixels).float().clip(0, 1) * 2 - 1
    return _maps(functional.interpolate(normals, (height, width), mode="bilinear"))


def run_stable_normal(model: Any, clip: Clip, device: torch.device, settings: TorchHubSettings) -> Normals:  # noqa: ANN401, ARG001
    """``Predictor.__call__`` of StableNormal: one picture of PIL in, one of eight bits out (0.3 degrees lost)."""
    from PIL import Image

    maps = []
    for image in clip.images:
        coloured = model(
            Image.fromarray(image),
            resolution=settings.resolution,
            match_input_resolution=True,
            data_type="indoor",  # the others paint what they mask white
            num_inference_steps=settings.steps,
        )
        maps.append(np.asarray(coloured.convert("RGB"), np.float32) / 255 * 2 - 1)
    return np.stack(maps)


PUBLISHED: dict[str, Published] = {
    "dsine": Published("hugoycj/DSINE-hub", "DSINE", run_dsine, {"local_file_path": "{folder}/checkpoints/dsine.pt"}),
    "stable-normal": Published(
        "Stable-X/StableNormal",
        "StableNormal",
        run_stable_normal,
        {"local_cache_dir": "{folder}/weights", "device": "{device}"},
    ),
    "stable-normal-turbo": Published(
        "Stable-X/StableNormal",
        "StableNormal_turbo",
        run_stable_normal,
        {"local_cache_dir": "{folder}/weights", "device": "{device}"},
    ),
    "metric3d-v2-small": Published("YvanYin/Metric3D", "metric3d_vit_small", run_metric3d, {"pretrain": True}),
    "metric3d-v2-large": Published("YvanYin/Metric3D", "metric3d_vit_large", run_metric3d, {"pretrain": True}),
    "metric3d-v2-giant": Published("YvanYin/Metric3D", "metric3d_vit_giant2", run_metric3d, {"pretrain": True}),
    "omnidata-v2": Published(
        "alexsax/omnidata_models", "surface_normal_dpt_hybrid_384", run_omnidata, {"pretrained": True}
    ),
}
