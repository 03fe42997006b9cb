"""From a card to a model that runs, with its contract checked at the door."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError, NcbenchError
from ncbench.geometry.axes import convert_axes
from ncbench.geometry.encoding import colour_problem
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
            ModelError: The model lacks what it needs, raises an error of its own, or answers with anything but one
                floating-point array of the right shape for each clip.
        """
        pending: list[Clip] = []

        def checked() -> Iterator[Clip]:
            for clip in clips:
                self._check_input(clip)
                pending.append(clip)
                yield clip

        for answer in self._answers(checked(), pending):
            if not pending:
                raise ModelError(f"model '{self.card.name}' answered more clips than it was given")
            yield convert_axes(_unit(self._checked_answer(answer, pending.pop(0))), self.card.axes, "opencv")
        if pending:
            raise ModelError(f"{self._where(pending[0])}: {len(pending)} clips were left unanswered")

    def _answers(self, clips: Iterator[Clip], pending: list[Clip]) -> Iterator[object]:
        try:
            yield from self.adapter.stream(clips)
        except NcbenchError:
            raise
        except Exception as error:  # a model's own code may raise anything
            where = self._where(pending[0]) if pending else f"model '{self.card.name}'"
            raise ModelError(f"{where}: the model failed with {type(error).__name__}: {error}") from error

    def _check_input(self, clip: Clip) -> None:
        if self.adapter.needs_truth and clip.truth is None:
            raise ModelError(f"control '{self.card.name}' reads the ground truth, and the clip carries none")
        if self.adapter.needs_intrinsics and clip.intrinsics is None:
            raise ModelError(
                f"model '{self.card.name}' needs intrinsics, and sequence '{clip.sequence}' has none. "
                "Add them to the data set, or state a field of view in the model's settings."
            )

    def _checked_answer(self, answer: object, clip: Clip) -> Normals:
        expected = (*clip.images.shape[:3], 3)
        if not isinstance(answer, np.ndarray) or answer.dtype.kind != "f":
            found = f"an array of {answer.dtype}" if isinstance(answer, np.ndarray) else f"a {type(answer).__name__}"
            raise ModelError(f"{self._where(clip)}: expected a numpy array of float32, got {found}")
        if answer.shape != expected:
            raise ModelError(
                f"{self._where(clip)}: expected normals of shape {expected}, got {answer.shape}. "
                "The adapter must answer at input size."
            )
        problem = colour_problem(answer)
        if problem:
            raise ModelError(f"{self._where(clip)}: {problem}.")
        return answer

    def _where(self, clip: Clip) -> str:
        return f"model '{self.card.name}', sequence '{clip.sequence}', frame {clip.frames[0]} on"


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
    try:
        model: NormalModel = adapter(card.settings)
    except NcbenchError:
        raise
    except Exception as error:  # a model's own code may raise anything
        raise ModelError(f"model '{card.name}' cannot be made: {type(error).__name__}: {error}") from error
    if model.clip_length < 1:
        raise ModelError(f"model '{card.name}': clip_length must be at least 1, got {model.clip_length}")
    return model


def _unit(vectors: Normals) -> Normals:
    """Scale to unit length; zero, NaN and infinite vectors become zero."""
    # float64: the square of a float32 may overflow or vanish
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 0)
    return np.where(usable, wide / np.where(usable, length, 1.0), 0.0).astype(np.float32)
