"""GMFlow by ptlflow, for those who have it: the flow that Buffer Anytime and NVDS measure with.

Xu et al., "GMFlow: Learning Optical Flow via Global Matching", CVPR 2022. ptlflow pins heavy packages (lightning,
opencv-python) that clash with others here, so keep it in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ncbench.errors import ModelError
from ncbench.evaluators.flow.base import Correspondence, FlowSource
from ncbench.evaluators.flow.pictures import picture_pair
from ncbench.evaluators.flow.weights import fingerprint, import_optional, read_state
from ncbench.evaluators.view import View
from ncbench.settings import Settings

_REMEDY = "Install ptlflow 0.4.2 or newer, in an environment of its own, or use source 'dis'."


class GmflowSettings(Settings):
    """Settings of ``GmflowFlow``.

    Attributes:
        weights: Checkpoint file of ptlflow.
        variant: ptlflow's name of the network.
        device: Where torch runs it.
    """

    weights: Path
    variant: Literal["gmflow", "gmflow_refine"] = "gmflow"
    device: str = "cpu"


class GmflowFlow(FlowSource):
    """ptlflow's GMFlow, which normalises and pads by itself, on BGR pictures scaled to [0, 1].

    Raises:
        ModelError: ptlflow is missing, or the weights do not fit.
    """

    estimated: ClassVar[bool] = True

    def __init__(self, settings: GmflowSettings) -> None:
        self.settings = settings
        self._digest = fingerprint(settings.weights, "gmflow")
        self._model = _load(settings)

    @property
    def name(self) -> str:
        """``<variant>-<first digits of the weights' sha256>``."""
        return f"{self.settings.variant}-{self._digest}"

    def match(self, a: View, b: View) -> Correspondence:
        """Find the pixels of frame a in frame b; see ``FlowSource.match``. ``visible`` is None."""
        import torch

        bgr = np.stack([picture[..., ::-1] for picture in picture_pair(a, b, self.name)])
        images = torch.from_numpy(bgr).permute(0, 3, 1, 2)[None].float() / 255  # (1, 2, 3, H, W)
        with torch.inference_mode():
            field = self._model({"images": images.to(self.settings.device)})["flows"]  # (1, 1, 2, H, W)
        return Correspondence(np.ascontiguousarray(field[0, 0].permute(1, 2, 0).float().cpu().numpy()), None)


def _load(settings: GmflowSettings) -> Any:  # noqa: ANN401 - ptlflow has no types
    model = import_optional("ptlflow", "gmflow", _REMEDY).get_model(settings.variant)
    try:
        model.load_state_dict(read_state(settings.weights))
    except RuntimeError as error:
        raise ModelError(
            f"{settings.weights}: does not fit ptlflow's {settings.variant} ({error}). Give a checkpoint of ptlflow's "
            "own, or set the other variant."
        ) from error
    return model.eval().to(settings.device)
