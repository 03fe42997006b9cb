"""RAFT by torchvision, for those who have it: an optional source with weights from a file.

Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020. Checkpoints named "sintel"
were trained on Sintel's training truth; that is fine for measuring, and worth saying beside a Sintel number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ncbench.errors import ModelError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.pictures import Picture, picture_pair
from ncbench.evaluators.flow.weights import fingerprint, import_optional, read_state
from ncbench.evaluators.view import View
from ncbench.settings import Settings

if TYPE_CHECKING:
    import torch

_STRIDE = 8  # of the feature maps
_LEAST = 128  # pixels; torchvision refuses smaller pictures, whose coarsest correlation would be empty


class RaftSettings(Settings):
    """Settings of ``RaftFlow``.

    Attributes:
        weights: Checkpoint file: a state dict of torchvision's ``raft_large`` or ``raft_small``.
        variant: Which of the two.
        updates: Refinement steps.
        device: Where torch runs it.
    """

    weights: Path
    variant: Literal["large", "small"] = "large"
    updates: int = Field(default=12, ge=1, le=100)
    device: str = "cpu"


class RaftFlow(FlowSource):
    """torchvision's RAFT on pictures scaled to [-1, 1] and padded, centred, by repeating their edges.

    Raises:
        ModelError: torchvision is missing or of another build than torch, or the weights do not fit.
    """

    estimated: ClassVar[bool] = True

    def __init__(self, settings: RaftSettings) -> None:
        self.settings = settings
        self._digest = fingerprint(settings.weights, "raft")
        self._model = _load(settings)

    @property
    def name(self) -> str:
        """``raft-<variant>-<updates>-<first digits of the weights' sha256>``."""
        return f"raft-{self.settings.variant}-{self.settings.updates}-{self._digest}"

    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b; see ``FlowSource.match``. ``visible`` is None."""
        import torch

        pictures = picture_pair(a, b, self.name)
        height, width = pictures[0].shape[:2]
        padding = (*_margins(width), *_margins(height))  # left, right, top, bottom
        first, second = (
            torch.nn.functional.pad(_scaled(picture), padding, mode="replicate").to(self.settings.device)
            for picture in pictures
        )
        with torch.inference_mode():
            # one field for each update; the last is the answer
            field = self._model(first, second, num_flow_updates=self.settings.updates)[-1]
        left, top = padding[0], padding[2]
        flow = field[0, :, top : top + height, left : left + width].permute(1, 2, 0)
        return Correspondence(np.ascontiguousarray(flow.float().cpu().numpy()), None)


def _load(settings: RaftSettings) -> Any:  # noqa: ANN401 - torchvision has no types
    import torch

    build = torch.__version__.partition("+")[2] or "none"
    flows = import_optional(
        "torchvision.models.optical_flow",
        "raft",
        f"Install the torchvision release made for torch {torch.__version__}, with the same build tag ({build}), from "
        "the index that your torch came from; another build fails on import. Or use source 'dis'.",
    )
    # weights_backbone does not exist for RAFT; weights=None keeps torchvision from downloading
    model = getattr(flows, f"raft_{settings.variant}")(weights=None, progress=False)
    try:
        model.load_state_dict(read_state(settings.weights))
    except RuntimeError as error:
        raise ModelError(
            f"{settings.weights}: does not fit torchvision's raft_{settings.variant} ({error}). Give a checkpoint of "
            "torchvision's own, or set the other variant."
        ) from error
    return model.eval().to(settings.device)


def _scaled(picture: Picture) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def _margins(length: int) -> tuple[int, int]:
    """Pixels to add before and after, so that the length is a multiple of the stride and long enough."""
    missing = max(-(-length // _STRIDE) * _STRIDE, _LEAST) - length
    return missing // 2, missing - missing // 2
