"""How good a model is while it learns: angular errors on clips that it is not trained on, and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ncbench.datasets.audit_sheet import colour_normals
from ncbench.errors import CardError, ModelError
from ncbench.evaluators.angular import AngularState
from ncbench.geometry.axes import convert_axes
from ncbench.loader_card import LoaderCard
from ncbench.loaders.mixture import ClipRef
from ncbench.loaders.recipes import open_clips
from ncbench.recipe_card import Validation
from ncbench.training.losses import HIGHEST_PSNR
from ncbench.training.stage import ReconstructionStage, Stage

Picture = NDArray[np.uint8]
_TILE, _LINE = 160, 14  # pixels: width of a picture, height of a line of text
_LONGEST = 7  # frames of a clip that a picture has room for


@dataclass(frozen=True)
class ClipScore:
    """What one clip gave.

    Attributes:
        index: Number of the clip.
        state: Its angular errors.
        squared: Squared differences, summed over valid pixels and their three values; None where normals are predicted
            from images, not given back.
        picture: Image, truth and prediction below each other, frames beside each other; None where none was asked for.
    """

    index: int
    state: AngularState
    squared: float | None
    picture: Picture | None


class Validator:
    """Clips of a held-out store, resized and cropped (at the centre) as training clips are, unchanged otherwise.

    Args:
        settings: The recipe's.
        loader: The training data's card.
        stores: Folder or URL of the prepared data sets.

    Raises:
        CardError: The data set is not prepared, or is trained on.
        StoreError: The store is damaged.
    """

    def __init__(self, settings: Validation, loader: LoaderCard, stores: str | Path) -> None:
        self._settings, self._axes = settings, loader.axes
        self._clips = open_clips(validation_card(settings, loader), stores)
        plan = self._clips.plan(0)
        count = min(settings.clips, len(plan.refs))
        self._refs = [plan.ref(int(at)) for at in np.linspace(0, len(plan.refs) - 1, count).round()]

    def run(self, stage: Stage, device: torch.device, rank: int, world: int) -> list[ClipScore]:
        """Score every ``world``-th clip.

        Args:
            stage: With its networks; its training mode is restored.
            device: Where they are.
            rank: Number of this process.
            world: How many processes share the clips.

        Returns:
            Scores of this process's clips.

        Raises:
            ModelError: The stage answers in another shape.
        """
        training = stage.training
        stage.eval()
        try:
            with torch.no_grad():
                return [
                    self._score(stage, device, index, self._refs[index])
                    for index in range(rank, len(self._refs), world)
                ]
        finally:
            stage.train(training)

    def _score(self, stage: Stage, device: torch.device, index: int, ref: ClipRef) -> ClipScore:
        batch = self._clips.read([ref])
        images, normal, valid = batch["image"][0], batch["normal"][0], batch["valid"][0].numpy()
        if isinstance(stage, ReconstructionStage):
            answer = stage.reconstruct(normal.to(device))
        else:
            answer = stage.predict(images.to(device))
        if answer.shape != normal.shape:
            raise ModelError(f"validation: expected normals of shape {tuple(normal.shape)}, got {tuple(answer.shape)}")
        preds, target = _last(answer.float().cpu()), _last(normal)
        state = AngularState.score(preds, target, valid)
        given_back = isinstance(stage, ReconstructionStage)
        squared = float(np.square(preds - target, dtype=np.float64)[valid].sum()) if given_back else None
        wanted = index < self._settings.pictures
        name = f"{batch['dataset'][0]}  {batch['sequence'][0]}"
        shown = (_last(images), *(convert_axes(one, self._axes, "opencv") for one in (target, preds)))
        return ClipScore(index, state, squared, _strip(name, state, shown, valid) if wanted else None)


def validation_card(settings: Validation, loader: LoaderCard) -> LoaderCard:
    """Derive the card of the held-out data from that of the training data.

    Raises:
        CardError: Their frames overlap.
    """
    for entry in loader.sets:
        shared = set(entry.sequences or ()) & set(settings.sequences or ())
        if entry.dataset == settings.dataset and (entry.sequences is None or settings.sequences is None or shared):
            raise CardError(
                f"validation: data set '{settings.dataset}' is trained on, so it cannot tell how good the model is. "
                "Take another (--set validation.dataset=NAME), or name different 'sequences' here and in the loader."
            )
    values = loader.model_dump(mode="json")
    resize = values["resize"] and values["resize"] | {"scale": (1.0, 1.0)}
    crop = values["crop"] and values["crop"] | {"place": "centre"}
    plain: dict[str, object] = {
        "flip": 0.0,
        "reverse": 0.0,
        "photometric": None,
        "columns": [],
        "stride": (1, 1),
        "image": "float32",
    }
    order = {"shuffle": "none", "batch_size": 1, "length": (1, settings.frames)}
    sets = {"sets": [{"dataset": settings.dataset, "sequences": settings.sequences}]}
    changes = {"name": "validation", "resize": resize, "crop": crop, **plain, **order, **sets}
    return LoaderCard.parse(values | changes, where="validation")


def summary(scores: list[ClipScore]) -> tuple[dict[str, float], Picture | None]:
    """Put the clips of all processes together.

    Args:
        scores: In any order.

    Returns:
        Metrics, pooled over pixels, as ``validation_mean`` and so on, with ``validation_psnr`` (decibels, of unit
        normals, whose values span -1..1) of an autoencoder; and the pictures below each other.
    """
    ordered = sorted(scores, key=lambda score: score.index)
    pooled = AngularState.empty()
    for score in ordered:
        pooled = pooled + score.state
    pictures = [score.picture for score in ordered if score.picture is not None]
    values = dict(pooled.metrics())
    squares = [score.squared for score in ordered if score.squared is not None]
    if squares:
        mean = sum(squares) / max(1, 3 * pooled.count)
        values["psnr"] = HIGHEST_PSNR if mean == 0 else min(HIGHEST_PSNR, 10 * math.log10(4 / mean))
    return _named(values), _stacked(pictures) if pictures else None


def _named(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"validation_{name}": value for name, value in metrics.items()}


def _last(maps: torch.Tensor) -> NDArray[np.float32]:
    """(T, 3, H, W) to (T, H, W, 3)."""
    return np.ascontiguousarray(maps.movedim(1, -1).numpy())


def _strip(
    name: str, state: AngularState, shown: tuple[NDArray[np.floating], ...], valid: NDArray[np.bool_]
) -> Picture:
    images, target, preds = shown
    count, height, width = min(len(images), _LONGEST), *images.shape[1:3]
    tile = (_TILE, max(1, round(_TILE * height / width)))
    sheet = Image.new("RGB", (max(3, count) * _TILE, 3 * tile[1] + _LINE), (255, 255, 255))
    error = f"mean error {state.metrics()['mean']:.1f} degrees" if state.count else "no valid pixel"
    text = f"{name}  {error}; picture, truth, prediction"
    ImageDraw.Draw(sheet).text((2, 1), text.encode("latin-1", "replace").decode("latin-1"), fill=(30, 30, 30))
    method = Image.Resampling.BOX if width > _TILE else Image.Resampling.NEAREST
    everywhere = np.ones(images.shape[1:3], np.bool_)
    for frame in range(count):
        picture = np.rint((images[frame] + 1) * 127.5).clip(0, 255).astype(np.uint8)
        rows = (picture, colour_normals(target[frame], valid[frame]), colour_normals(preds[frame], everywhere))
        for row, drawn in enumerate(rows):
            sheet.paste(Image.fromarray(drawn).resize(tile, method), (frame * _TILE, _LINE + row * tile[1]))
    return np.asarray(sheet)


def _stacked(pictures: list[Picture]) -> Picture:
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in pictures]
    return np.concatenate(padded)
