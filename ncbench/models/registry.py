"""From a card to a model that runs, with its contract checked at the door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.geometry.axes import convert_axes
from ncbench.models.base import Clip, NormalModel, Normals
from ncbench.registry import load_attribute


@dataclass(frozen=True)
class LoadedModel:
    """A model behind its card.

    Attributes:
        card: What it says of itself.
        adapter: The code that predicts.
    """

    card: ModelCard
    adapter: NormalModel

    def predict(self, clip: Clip) -> Normals:
        """Predict one clip on its own.

        Args:
            clip: The frames.

        Returns:
            (T, H, W, 3) float32 canonical unit normals (OpenCV axes); zero where the model gave no direction.

        Raises:
            ModelError: As ``stream``.
        """
        return next(self.stream([clip]))

    def stream(self, clips: Iterable[Clip]) -> Iterator[Normals]:
        """Predict the clips of one sequence in order, in canonical axes.

        Args:
            clips: As ``NormalModel.stream`` takes them.

        Yields:
            For each clip (T, H, W, 3) float32 canonical unit normals (OpenCV axes); zero where there was no direction.

        Raises:
            ModelError: The model lacks what it needs, or answers with another shape or number of clips.
        """
        pending: list[Clip] = []

        def checked() -> Iterator[Clip]:
            for clip in clips:
                self._check_input(clip)
                pending.append(clip)
                yield clip

        for answer in self.adapter.stream(checked()):
            if not pending:
                raise ModelError(f"model '{self.card.name}' answered more clips than it was given")
            clip = pending.pop(0)
            expected = (*clip.images.shape[:3], 3)
            if answer.shape != expected:
                raise ModelError(
                    f"model '{self.card.name}', sequence '{clip.sequence}', frame {clip.frames[0]} on: "
                    f"expected normals of shape {expected}, got {answer.shape}. The adapter must answer at input size."
                )
            yield convert_axes(_unit(answer), self.card.axes, "opencv")
        if pending:
            raise ModelError(
                f"model '{self.card.name}' left {len(pending)} clips of '{pending[0].sequence}' unanswered"
            )

    def _check_input(self, clip: Clip) -> None:
        if self.adapter.needs_truth and clip.truth is None:
            raise ModelError(f"control '{self.card.name}' reads the ground truth, and the clip carries none")
        if self.adapter.needs_intrinsics and clip.intrinsics is None:
            raise ModelError(
                f"model '{self.card.name}' needs intrinsics, and sequence '{clip.sequence}' has none. "
                "Add them to the data set, or state a field of view in the model's settings."
            )


def load_model(name: str) -> LoadedModel:
    """Find a model's card and make its adapter.

    Args:
        name: The card's name, or a path to a YAML file.

    Returns:
        The model.

    Raises:
        CardError: No such card, or it names code that does not exist or is no model.
    """
    card = catalog.load(ModelCard, name)
    return LoadedModel(card, load_adapter(card))


def load_adapter(card: ModelCard) -> NormalModel:
    """Make the adapter that a card names.

    Args:
        card: The model's card.

    Returns:
        The adapter, made from the card's settings.

    Raises:
        CardError: The card names code that does not exist or is no model.
        ModelError: The adapter cannot be made (weights or files missing).
    """
    adapter = load_attribute(card.adapter)
    if not (isinstance(adapter, type) and issubclass(adapter, NormalModel)):
        raise CardError(
            f"model '{card.name}': adapter '{card.adapter}' is not a subclass of ncbench.models.base.NormalModel"
        )
    return adapter(card.settings)


def _unit(vectors: Normals) -> Normals:
    """Scale to unit length; zero, NaN and infinite vectors become zero."""
    # float64: the square of a float32 may overflow or vanish
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 0)
    return np.where(usable, wide / np.where(usable, length, 1.0), 0.0).astype(np.float32)
