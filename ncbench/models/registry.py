"""From a card to a model that runs, with its contract checked at the door."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError, NcbenchError
from ncbench.geometry.axes import convert_axes
from ncbench.geometry.encoding import colour_problem
from ncbench.jit import jit
from ncbench.models.base import Answer, Clip, NormalModel, Normals, Precision, Runtime
from ncbench.models.memory import OutOfMemoryError, is_out_of_memory
from ncbench.models.weights import find_weights
from ncbench.registry import load_attribute

_GLANCE = 1 << 15  # vectors that tell colours from directions


@dataclass(frozen=True)
class _Expected:
    """What the answer to a clip must fit; the clip itself is not kept."""

    where: str
    shape: tuple[int, int, int]


@dataclass
class LoadedModel:
    """A model behind its card.

    Attributes:
        card: What it says of itself.
        adapter: The code that predicts; loaded before the first prediction.
        runtime: Where and how it computes.
    """

    card: ModelCard
    adapter: NormalModel
    runtime: Runtime = field(default_factory=Runtime)
    _loaded: bool = field(default=False, init=False, repr=False)

    def load(self) -> None:
        """Load the adapter, once; predicting does so by itself.

        Raises:
            ModelError: Weights are missing or do not fit, or the device has too little memory.
        """
        if self._loaded:
            return
        try:
            self.adapter.load(self.runtime)
        except NcbenchError:
            raise
        except Exception as error:  # a model's own code may raise anything
            if is_out_of_memory(error):
                raise ModelError(
                    f"model '{self.card.name}' does not fit into the memory of {self.runtime.device} (it asks for "
                    f"{self.adapter.memory}). Take another device or a lower precision."
                ) from error
            raise ModelError(f"model '{self.card.name}' cannot be loaded: {_told(error)}") from error
        self._loaded = True

    def predict(self, clip: Clip) -> Normals:
        """Predict the normals of one clip on its own.

        Args:
            clip: The frames.

        Returns:
            (T, H, W, 3) float32 canonical unit normals (OpenCV axes); zero where the model gave no direction.

        Raises:
            ModelError: As ``stream``, or the model answers with depth alone.
        """
        answer = self.answer(clip)
        if answer.normal is None:
            raise ModelError(f"model '{self.card.name}' answers with depth alone; 'answer' gives it")
        return answer.normal

    def answer(self, clip: Clip) -> Answer:
        """Predict one clip on its own; as ``stream``."""
        return next(self.stream([clip]))

    def stream(self, clips: Iterable[Clip]) -> Iterator[Answer]:
        """Predict the clips of one sequence in order, in canonical axes.

        Args:
            clips: As ``NormalModel.stream`` takes them.

        Yields:
            The answer to each clip; its normals are canonical unit normals (OpenCV axes), zero where there was no
            direction.

        Raises:
            OutOfMemoryError: Memory ran out; another try with less may succeed.
            ModelError: The model lacks what it needs, raises an error of its own, or answers with anything but
                floating-point arrays of the right shape for each clip.
        """
        pending: list[_Expected] = []

        def checked() -> Iterator[Clip]:
            for clip in clips:
                self._check_input(clip)
                count, height, width = clip.images.shape[:3]
                where = f"model '{self.card.name}', sequence '{clip.sequence}', frame {clip.frames[0]} on"
                pending.append(_Expected(where, (count, height, width)))
                yield clip

        self.load()
        for answer in self._answers(checked(), pending):
            if not pending:
                raise ModelError(f"model '{self.card.name}' answered more clips than it was given")
            yield self._canonical(answer, pending.pop(0))
        if pending:
            raise ModelError(f"{pending[0].where}: {len(pending)} clips were left unanswered")

    def _answers(self, clips: Iterator[Clip], pending: list[_Expected]) -> Iterator[object]:
        exhausted = ""
        try:
            yield from self.adapter.stream(clips)
        except NcbenchError:
            raise
        except Exception as error:  # a model's own code may raise anything
            where = pending[0].where if pending else f"model '{self.card.name}'"
            if not is_out_of_memory(error):
                raise ModelError(f"{where}: the model failed with {_told(error)}") from error
            exhausted = f"{where}: memory ran out on {self.runtime.device} ({_told(error)})"
        if exhausted:  # raised out here, where the first error no longer holds on to the tensors of its frames
            raise OutOfMemoryError(exhausted)

    def _check_input(self, clip: Clip) -> None:
        if self.adapter.needs_truth and clip.truth is None:
            raise ModelError(f"control '{self.card.name}' reads the ground truth, and the clip carries none")
        if self.adapter.needs_intrinsics and clip.intrinsics is None:
            raise ModelError(
                f"model '{self.card.name}' needs intrinsics, and sequence '{clip.sequence}' has none. "
                "Add them to the data set, or state a field of view in the model's settings."
            )

    def _canonical(self, value: object, expected: _Expected) -> Answer:
        answer = value if isinstance(value, Answer) else Answer(value)  # type: ignore[arg-type]  # checked next
        if answer.normal is None and answer.depth is None and isinstance(value, Answer):
            raise ModelError(f"{expected.where}: expected normals, depth or both, got neither")
        if answer.depth is not None and self.card.depth is None:
            raise ModelError(
                f"{expected.where}: the model answers with depth, and its card does not say of which kind. Add 'depth: "
                "metres', 'relative' or 'disparity' to the card."
            )
        if answer.confidence is not None and not self.adapter.gives_confidence:
            raise ModelError(f"{expected.where}: got a confidence. Set 'gives_confidence' on the model's class.")
        normal = None
        if answer.normal is not None or not isinstance(value, Answer):
            vectors = _checked(answer.normal, "normals", (*expected.shape, 3), expected.where)
            problem = colour_problem(_sample(vectors))
            if problem:
                raise ModelError(f"{expected.where}: {problem}.")
            normal = convert_axes(_unit(vectors), self.card.axes, "opencv")
        return Answer(
            normal,
            _optional(answer.depth, "depth", expected),
            _optional(answer.confidence, "confidence", expected),
        )


def load_model(
    name: str, *, weights: str | Path | None = None, device: str = "cpu", precision: Precision = "fp32", seed: int = 0
) -> LoadedModel:
    """Find a model's card and make its adapter.

    Args:
        name: The card's name, or a path to a YAML file.
        weights: Folder of weights, for work offline; None takes those of the Hub, and downloads what is missing.
        device: In torch's spelling.
        precision: Number format of the network.
        seed: What all randomness is drawn from.

    Returns:
        The model; its network is loaded at the first prediction.

    Raises:
        CardError: No such card, or it names code that does not exist or is no model.
        ModelError: Weights are missing, or not those that the card pins.
    """
    card = catalog.load(ModelCard, name)
    adapter = load_adapter(card)
    found = find_weights(card, None if weights is None else Path(weights))
    folder = None if found is None else found.folder
    return LoadedModel(card, adapter, Runtime(weights=folder, device=device, precision=precision, seed=seed))


def load_adapter(card: ModelCard) -> NormalModel:
    """Make the adapter that a card names.

    Args:
        card: The model's card.

    Returns:
        The adapter, made from the card's settings; not loaded yet.

    Raises:
        CardError: The card names code that does not exist or is no model.
        ModelError: The adapter cannot be made (files missing).
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
        raise ModelError(f"model '{card.name}' cannot be made: {_told(error)}") from error
    if model.clip_length < 1:
        raise ModelError(f"model '{card.name}': clip_length must be at least 1, got {model.clip_length}")
    return model


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _optional(value: object, what: str, expected: _Expected) -> NDArray[np.float32] | None:
    return None if value is None else _checked(value, what, expected.shape, expected.where).astype(np.float32)


def _checked(value: object, what: str, shape: tuple[int, ...], where: str) -> Normals:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise ModelError(f"{where}: expected {what} as a numpy array of float32, got {found}")
    if value.shape != shape:
        raise ModelError(
            f"{where}: expected {what} of shape {shape}, got {value.shape}. The adapter must answer at input size."
        )
    return value


def _sample(vectors: Normals) -> Normals:
    """Take about as many evenly spread vectors as a glance needs."""
    step = max(1, math.isqrt(vectors[..., 0].size // _GLANCE))
    return vectors[:, ::step, ::step]


def _unit(vectors: Normals) -> Normals:
    """Scale to unit length; zero, NaN and infinite vectors become zero."""
    given = np.ascontiguousarray(vectors, np.float32)
    unit = np.empty_like(given)
    _scale(given.reshape(-1), unit.reshape(-1))
    return unit


@jit()
def _scale(given: Normals, unit: Normals) -> None:
    """Scale flat triples; in one pass, since every answer of every model goes through here."""
    zero = np.float32(0)
    for i in range(0, len(given), 3):
        # float64: the square of a float32 may overflow or vanish
        x, y, z = np.float64(given[i]), np.float64(given[i + 1]), np.float64(given[i + 2])
        length = np.sqrt(x * x + y * y + z * z)
        usable = (length > 0) & (length < np.inf)  # false for NaN
        scale = 1 / length
        unit[i] = np.float32(x * scale) if usable else zero
        unit[i + 1] = np.float32(y * scale) if usable else zero
        unit[i + 2] = np.float32(z * scale) if usable else zero
