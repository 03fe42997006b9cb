"""The guide's script and card of a video depth model, taken from the page and run with a stand-in for its package."""

import re
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from ncbench import open_store
from ncbench.evaluators.run import evaluate
from ncbench.models.run import predict

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "baselines.md"

STAND_IN = """
import numpy as np
import torch

class VideoDepthAnything(torch.nn.Module):
    def __init__(self, encoder, features, out_channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))
        assert (encoder, features, out_channels[0]) == ("vitl", 256, 256)

    def infer_video_depth(self, frames, target_fps, input_size=518, device="cuda", fp32=False):
        assert frames.dtype == np.uint8 and frames.ndim == 4 and device == "cpu"
        rows = np.linspace(1, 3, frames.shape[1], dtype=np.float32)
        return np.broadcast_to(float(self.scale) * rows[None, :, None], frames.shape[:3]), target_fps
"""


def block(language: str, part: str) -> str:
    (text,) = [t for t in re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL) if part in t]
    return text


def test_a_video_depth_model_in_its_own_environment(tiny: Path) -> None:
    (tiny / "vda.py").write_text(block("python", "import VideoDepthAnything"))
    package = tiny / "Video-Depth-Anything" / "video_depth_anything"
    package.mkdir(parents=True)
    (package / "video_depth.py").write_text(STAND_IN)
    checkpoints = tiny / "Video-Depth-Anything" / "checkpoints"
    checkpoints.mkdir()
    torch.save({"scale": torch.tensor(2.0)}, checkpoints / "video_depth_anything_vitl.pth")
    (tiny / "models").mkdir()
    card = block("yaml", "name: video-depth-anything").replace("envs/vda/bin/python", sys.executable)
    (tiny / "models" / "video-depth-anything.yaml").write_text(card)
    frame = open_store(predict("video-depth-anything", "tiny")).read("two", 1)
    height, width = frame.depth.shape
    expected = np.broadcast_to(2 * np.linspace(1, 3, height)[:, None], (height, width))
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    # the nearest lies below, as on a floor: its normals look up and back
    assert (frame.normal[2:-2, 2:-2, 1] < 0).all()
    assert (frame.normal[2:-2, 2:-2, 2] < 0).all()

    path = tiny / "evaluators" / "tiny.yaml"
    depth = {"task": "depth", "depth": {"max_depth": 1000}}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | depth))
    predict("video-depth-anything", "tiny")
    row = evaluate("video-depth-anything", "tiny").iloc[0]
    assert 0 < row["abs_rel"] < 10
    assert 0 <= row["delta1"] <= 1
