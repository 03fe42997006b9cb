"""The pictures of two frames, for sources that estimate motion from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncbench.errors import ScoreError
from ncbench.evaluators.view import View

Picture = NDArray[np.uint8]


def picture_pair(a: View, b: View, source: str) -> tuple[Picture, Picture]:
    """Take the pictures of two frames.

    Args:
        a: The frame whose pixels are asked about.
        b: The frame they are looked for in.
        source: Name of the flow's source, for the message.

    Returns:
        Two (H, W, 3) uint8 RGB arrays of equal shape.

    Raises:
        ScoreError: A frame has no picture, or the sizes differ.
    """
    first, second = _picture(a, source), _picture(b, source)
    if first.shape != second.shape:
        raise ScoreError(
            f"sequence '{a.sequence}': flow source '{source}' needs pictures of one size, got {first.shape} in frame "
            f"{a.frame} and {second.shape} in frame {b.frame}"
        )
    return first, second


def _picture(view: View, source: str) -> Picture:
    if view.image is None:
        raise ScoreError(
            f"sequence '{view.sequence}', frame {view.frame}: flow source '{source}' looks at pictures, and there is "
            "none. Use source 'gt' or 'rigid' for data without pictures."
        )
    return view.image
