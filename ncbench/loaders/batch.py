"""The batch: what each tensor is, and how it is filled from a store, each frame decoded once into its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from ncbench.datasets.pictures import decode_image
from ncbench.datasets.store import Store
from ncbench.errors import StoreError
from ncbench.geometry.axes import axes_matrix
from ncbench.jit import jit
from ncbench.loader_card import LoaderCard
from ncbench.loaders.augment import apply_change, draw_change
from ncbench.loaders.maps import Maps
from ncbench.loaders.memory import Memory
from ncbench.loaders.mixture import ClipRef, Mixture
from ncbench.loaders.training_copy import PIXELS


class Batch(TypedDict):
    """B clips of T frames of one size; a sample is the same without B, and without T for single frames.

    Pictures are channels first; their memory is channels last, which convolutions take as it is and ``contiguous()``
    turns. Geometry is in the OpenCV camera frame (x right, y down, z forward), but for ``normal``, which is in the axes
    that the card names. Keys after ``first_row`` are there where the card asks for them.

    Attributes:
        image: (B, T, 3, H, W) RGB, uint8 in [0, 255], or float32 in [-1, 1].
        normal: (B, T, 3, H, W) float32, unit length facing the camera, zero where not valid.
        valid: (B, T, H, W) bool, where ``normal`` is meant to be used.
        dataset: B names of data sets.
        sequence: B names of sequences.
        frames: (B, T) int64, frame numbers within the sequence; they descend in a clip that runs backwards.
        flipped: (B,) bool, whether the clip is mirrored left to right.
        turn: (B,) int64, which pass over its data set the clip belongs to.
        first_row: (B,) int64, row of the clip's first frame in the store.
        depth: (B, T, H, W) float32 z-depth in metres, 0 where unknown or where the store has none.
        flow: (B, T, 2, H, W) float32 (u, v) in pixels to the next frame of the sequence, NaN where unknown. The flow of
            the last frame leads out of the clip.
        occluded: (B, T, H, W) bool, not visible in the next frame of the sequence; false where the store has none.
        intrinsics: (B, T, 3, 3) float64 in pixels, centre of the top-left pixel at (0, 0); NaN where unknown.
        cam_to_world: (B, T, 4, 4) float64, metres; NaN where unknown.
    """

    image: torch.Tensor
    normal: torch.Tensor
    valid: torch.Tensor
    dataset: list[str]
    sequence: list[str]
    frames: torch.Tensor
    flipped: torch.Tensor
    turn: torch.Tensor
    first_row: torch.Tensor
    depth: NotRequired[torch.Tensor]
    flow: NotRequired[torch.Tensor]
    occluded: NotRequired[torch.Tensor]
    intrinsics: NotRequired[torch.Tensor]
    cam_to_world: NotRequired[torch.Tensor]


_UNKNOWN: dict[str, float] = {
    "depth": 0.0,
    "flow": float("nan"),
    "occluded": 0.0,
    "intrinsics": float("nan"),
    "cam_to_world": float("nan"),
}
_MATRICES = ("intrinsics", "cam_to_world")
_CHANNELS_LAST = ("image", "normal", "flow")


def _forms(size: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of what is decoded of a frame of some size."""
    return {
        "image": ((*size, 3), torch.uint8),
        "normal": ((*size, 3), torch.float32),
        "valid": (size, torch.bool),
        "depth": (size, torch.float32),
        "flow": ((*size, 2), torch.float32),
        "occluded": (size, torch.bool),
        "intrinsics": ((3, 3), torch.float64),
        "cam_to_world": ((4, 4), torch.float64),
    }


class _Places:
    """Memory of a batch: tensors, and the numpy views of them that frames are written into."""

    def __init__(self, card: LoaderCard, clips: int, frames: int, size: tuple[int, int], memory: Memory) -> None:
        forms = _forms(size) | ({"image": ((*size, 3), torch.float32)} if card.image == "float32" else {})
        wanted = ("image", "normal", "valid", *card.columns)
        self.tensors = {name: memory.batch((clips, frames, *forms[name][0]), forms[name][1]) for name in wanted}
        self.arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        x, y, z = np.diag(axes_matrix("opencv", card.axes)).astype(np.float32)
        self.signs = (x, y, z)

    def of(self, clip: int, frame: int) -> dict[str, NDArray[Any]]:
        """Return where the maps of one frame go."""
        return {name: array[clip, frame] for name, array in self.arrays.items()}

    def put(self, places: dict[str, NDArray[Any]], maps: Maps) -> None:
        """Write one frame into its places, but for what was decoded there."""
        for name, place in places.items():
            value = getattr(maps, name)
            if value is None:
                place[...] = _UNKNOWN[name]
            elif name == "normal" and self.signs != (1, 1, 1):
                _turn(value, *self.signs, place)
            elif name == "image" and place.dtype == np.float32:
                np.multiply(value, np.float32(2 / 255), out=place)
                np.subtract(place, np.float32(1), out=place)
            elif value is not place:
                place[...] = value

    def shown(self) -> dict[str, torch.Tensor]:
        """Give the tensors with channels before rows, without moving a byte."""
        last = _CHANNELS_LAST
        return {name: tensor.movedim(-1, -3) if name in last else tensor for name, tensor in self.tensors.items()}


def read_batch(mixture: Mixture, refs: Sequence[ClipRef], memory: Memory | None = None) -> Batch:
    """Read clips of one kind from their stores.

    Args:
        mixture: The data sets.
        refs: The clips, all of one length and final size.
        memory: Where to take room from; None asks the system.

    Returns:
        The batch.

    Raises:
        StoreError: A shard or cell is damaged or missing, or a frame has no picture; names recipe, file and frame.
    """
    card = mixture.card
    stored = [mixture.members[ref.member].stored_size(ref.first) for ref in refs]
    changes = [
        draw_change(card, mixture.members[ref.member], ref, size) for ref, size in zip(refs, stored, strict=True)
    ]
    size = (card.crop.height, card.crop.width) if card.crop else changes[0].size
    room = memory or Memory()
    places = _Places(card, len(refs), refs[0].frames, size, room)
    frames = torch.empty((len(refs), refs[0].frames), dtype=torch.int64)
    for index, (ref, change) in enumerate(zip(refs, changes, strict=True)):
        store = mixture.members[ref.member].store
        wanted = {"normal", "valid", *card.columns}
        if card.resize and card.resize.depth_edges and change.size != stored[index]:
            wanted.add("depth")
        decoding = _Decoding(stored[index], wanted, in_place=not change.changes_pixels(stored[index]), memory=room)
        for time, row in enumerate(ref.rows[::-1] if change.reverse else ref.rows):
            here = places.of(index, time)
            places.put(here, apply_change(decoding.read(store, row, here), change))
            frames[index, time] = store.locate(row)[1]
    batch: Any = places.shown() | {
        "dataset": [mixture.members[ref.member].name for ref in refs],
        "sequence": [mixture.members[ref.member].store.locate(ref.first)[0] for ref in refs],
        "frames": frames,
        "flipped": torch.tensor([change.flip for change in changes]),
        "turn": torch.tensor([ref.turn for ref in refs]),
        "first_row": torch.tensor([ref.first for ref in refs]),
    }
    return batch  # type: ignore[no-any-return]  # TypedDict built by name


class _Decoding:
    """Decodes frames of one clip into their places in a batch, or where pixels change later, into one scratch."""

    def __init__(self, size: tuple[int, int], wanted: set[str], *, in_place: bool, memory: Memory) -> None:
        self._forms, self._wanted, self._in_place, self._memory = _forms(size), wanted, in_place, memory
        self._scratch: dict[str, NDArray[Any]] = {}

    def read(self, store: Store, row: int, places: dict[str, NDArray[Any]]) -> Maps:
        """Decode one frame; it holds until the next one."""
        picture = PIXELS if PIXELS in store.columns else "image"
        into = {name: self._place(name, places) for name in self._wanted if name not in _MATRICES}
        if picture == PIXELS:
            into[PIXELS] = self._place("image", places)
        found = store.values(row, {picture, *self._wanted}, into)
        encoded = found.pop(picture)
        if encoded is None:
            sequence, frame = store.locate(row)
            raise StoreError(f"{store.where}: sequence '{sequence}' frame {frame} has no picture to train on.")
        image = encoded if picture == PIXELS else decode_image(encoded)
        return Maps(image=image, **found)

    def _place(self, name: str, places: dict[str, NDArray[Any]]) -> NDArray[Any]:
        shape, kind = self._forms[name]
        if self._in_place and not (name == "image" and places[name].dtype != np.uint8):
            return places[name]
        if name not in self._scratch:
            self._scratch[name] = self._memory.scratch(shape, kind).numpy()
        return self._scratch[name]


@jit()
def _turn(
    normal: NDArray[np.float32], x: np.float32, y: np.float32, z: np.float32, turned: NDArray[np.float32]
) -> None:
    """Multiply each vector by signs; numpy's broadcast over an axis of three is several times slower."""
    for i in range(normal.shape[0]):
        for j in range(normal.shape[1]):
            turned[i, j, 0] = normal[i, j, 0] * x
            turned[i, j, 1] = normal[i, j, 1] * y
            turned[i, j, 2] = normal[i, j, 2] * z


def collate(samples: Sequence[Any]) -> Any:  # noqa: ANN401 - samples and batches are TypedDicts
    """Stack samples of one shape into a batch, for a plain ``torch.utils.data.DataLoader``.

    Args:
        samples: From ``NormalClips`` or ``NormalFrames``.

    Returns:
        The batch: tensors with a new first axis, lists of names.

    Raises:
        ValueError: The samples differ in length or size.
    """
    shapes = {tuple(sample["normal"].shape) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(
            f"expected samples of one shape (frames, 3, height, width), got {sorted(shapes)}. Use "
            "ncbench.loaders.loader.Loader, which batches clips of one kind, or batch_size=1, or a fixed length and "
            "crop."
        )
    first = samples[0]
    return {
        key: torch.stack([sample[key] for sample in samples])
        if isinstance(value, torch.Tensor)
        else [sample[key] for sample in samples]
        for key, value in first.items()
    }
