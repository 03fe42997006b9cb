"""NormalCrafter's overlapping windows over a clip of any length, with no more than two of them in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ncbench.models.adapters.normalcrafter_conditioning import Conditions

Predict = Callable[[Conditions, torch.Tensor | None], torch.Tensor]
"""Predicts the (T, C, h, w) latents of a window from its conditions and the latents carried into it."""


def schedule(frames: int, size: int, stride: int) -> list[tuple[int, int]]:
    """List the windows of a clip.

    Args:
        frames: Length of the clip.
        size: Frames a window.
        stride: From one window to the next.

    Returns:
        (start, stop) of each. All but the last lie on the stride; the last ends with the clip, and so may overlap more.
        A clip shorter than a window is one window.

    Examples:
        >>> schedule(37, size=14, stride=10)
        [(0, 14), (10, 24), (20, 34), (23, 37)]
        >>> schedule(5, size=14, stride=10)
        [(0, 5)]
    """
    if frames <= size:
        return [(0, frames)] if frames else []
    windows = [(start, start + size) for start in range(0, frames - size + 1, stride)]
    if windows[-1][1] < frames:
        windows.append((frames - size, frames))
    return windows


def cross_fade(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Fade from one window's latents to the next one's.

    Args:
        old: (n, C, h, w) of the overlap.
        new: (n, C, h, w) of the overlap.

    Returns:
        (n, C, h, w); the weight of the old ones falls linearly and reaches neither 1 nor 0.
    """
    weight = torch.linspace(1, 0, len(old) + 2)[1:-1].to(old.device)[:, None, None, None]
    return old * weight + new * (1 - weight)


class WindowStream:
    """Predicts the windows of a clip while it arrives, and hands out latents once no later window can change them.

    Where the last window starts is known only when the clip has ended: any frame behind the first of the newest window
    may still be predicted again. So the newest window's latents are kept, and the conditions of what may come next.

    Args:
        size: Frames a window.
        stride: From one window to the next; where it equals ``size``, nothing is carried over or faded, as released.
        predict: Predicts one window.
    """

    def __init__(self, size: int, stride: int, predict: Predict) -> None:
        self._size = size
        self._stride = stride
        self._predict = predict
        self._waiting: Conditions | None = None  # of frames from self._first on
        self._first = 0
        self._latents: torch.Tensor | None = None  # of the frames self._given .. self._stop, not handed out yet
        self._given = 0
        self._start = -stride  # of the newest window; the first starts at 0
        self._stop = 0

    @property
    def held(self) -> int:
        """How many frames' conditions and latents are in memory."""
        conditions = 0 if self._waiting is None else len(self._waiting)
        return conditions + (0 if self._latents is None else len(self._latents))

    def push(self, conditions: Conditions) -> list[torch.Tensor]:
        """Take the next frames.

        Args:
            conditions: Theirs.

        Returns:
            Pieces of (n, C, h, w) latents that are final, in order; together they go on where the last call ended.
        """
        self._waiting = conditions if self._waiting is None else self._waiting + conditions
        final = []
        while self._start + self._stride + self._size <= self._first + len(self._waiting):
            final += self._window(self._start + self._stride, self._size)
        return final

    def finish(self) -> list[torch.Tensor]:
        """Predict the last window, whose end is the clip's.

        Returns:
            As ``push``: all that is left.
        """
        frames = self._first + (0 if self._waiting is None else len(self._waiting))
        final = []
        if frames > self._stop:
            size = min(self._size, frames)
            final += self._window(frames - size, size)
        if self._latents is not None:
            final.append(self._latents)
        self._latents = self._waiting = None
        return final

    def _window(self, start: int, size: int) -> list[torch.Tensor]:
        """Predict one window; return what lies before it, for no later window reaches back there."""
        assert self._waiting is not None  # noqa: S101 - the callers count its frames
        final, old = [], None
        if self._latents is not None:
            final = [self._latents[: start - self._given]]
            old = self._latents[start - self._given :]
        conditions = self._waiting[start - self._first : start - self._first + size]
        carried = None if old is None or self._stride == self._size else old
        new = self._predict(conditions, carried)
        if carried is not None:
            new = torch.cat([cross_fade(carried, new[: len(carried)]), new[len(carried) :]])
        # the next window starts at the next frame or later
        self._waiting = self._waiting[start + 1 - self._first :]
        self._first = start + 1
        self._latents, self._given = new, start
        self._start, self._stop = start, start + size
        return final
