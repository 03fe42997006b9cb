"""Where predictions come from: a store that ``ncbench predict`` made, or a plain folder of files from anywhere."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ncbench import catalog
from ncbench.cards import ModelCard, digest, read_yaml
from ncbench.datasets.formats.images import read_depth_file
from ncbench.datasets.formats.normal_maps import StoredNormals, open_normals
from ncbench.datasets.manifest import CARD
from ncbench.datasets.store import Store, is_store, open_store
from ncbench.errors import NcbenchError, ScoreError, StoreError
from ncbench.evaluators.view import FloatMap
from ncbench.geometry.encoding import ColourMap
from ncbench.models.predictions import PredictionFiles
from ncbench.models.run import RUN_FILE, prediction_folder, prediction_identity, read_run
from ncbench.names import AxesName

FOLDER_ADAPTER = "ncbench.models.predictions:Predictions"


@dataclass(frozen=True)
class StoredMap:
    """Normals in a file of their own, decoded when they are asked for.

    Attributes:
        stored: As the file holds them.
        axes: In which axes that is.
    """

    stored: StoredNormals
    axes: AxesName

    @cached_property
    def normal(self) -> FloatMap:
        """(h, w, 3) float32 unit vectors in OpenCV axes, zero where there is no answer."""
        return self.stored.unit(self.axes)[0]

    @cached_property
    def raw(self) -> FloatMap:
        """(h, w, 3) float32, the numbers as the file holds them."""
        return self.stored.as_stored()[0]

    @property
    def colours(self) -> ColourMap | None:
        """The pixels, where the file is a picture."""
        return self.stored.colours(self.axes)


@dataclass(frozen=True)
class CanonicalMap:
    """Normals that were kept as unit vectors.

    Attributes:
        normal: (h, w, 3) float32 unit vectors in OpenCV axes, zero where there is no answer.
    """

    normal: FloatMap
    raw: None = None
    colours: None = None


NormalPrediction = StoredMap | CanonicalMap


class PredictionSource(abc.ABC):
    """Predictions by sequence and frame; picklable, so that worker processes can read.

    Attributes:
        card: The model's card; a plain folder gets one made from what the user stated.
    """

    card: ModelCard

    @abc.abstractmethod
    def read(self, sequence: str, frame: int) -> NormalPrediction:
        """Read the normals of one frame.

        Args:
            sequence: Name of the clip.
            frame: The data set's frame index.

        Returns:
            The prediction.

        Raises:
            NcbenchError: There is none, or it is damaged.
        """

    @abc.abstractmethod
    def read_depth(self, sequence: str, frame: int) -> FloatMap:
        """Read the depth of one frame.

        Args:
            sequence: As for ``read``.
            frame: As for ``read``.

        Returns:
            (h, w) float32, 0 where there is no answer; metres, or whatever the protocol aligns.

        Raises:
            NcbenchError: There is none, or it is damaged.
        """

    @abc.abstractmethod
    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Name the content of some frames: other predictions, another text.

        Raises:
            NcbenchError: A frame is missing.
        """

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """Say where the predictions come from, for the result file; plain values without paths of the machine."""


@dataclass(frozen=True)
class StoredPredictions(PredictionSource):
    """A prediction store."""

    store: Store
    card: ModelCard

    def read(self, sequence: str, frame: int) -> CanonicalMap:
        """Decode one row; its normals are canonical already."""
        return CanonicalMap(self.store.read(sequence, frame, ()).normal)

    def read_depth(self, sequence: str, frame: int) -> FloatMap:
        """Decode one row's depth."""
        depth = self.store.read(sequence, frame, ("depth",)).depth
        if depth is None:
            raise StoreError(f"{self.store.path}: sequence '{sequence}', frame {frame} has no depth to score")
        return depth

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:  # noqa: ARG002 - the whole store has one digest
        """Name the store's content."""
        return self.store.manifest.digest

    def record(self) -> dict[str, Any]:
        """Give the store's digest and what ``ncbench predict`` noted."""
        return {"digest": self.store.manifest.digest} | read_run(self.store.path)


@dataclass(frozen=True)
class FolderPredictions(PredictionSource):
    """A plain folder of files, one a frame."""

    files: PredictionFiles
    card: ModelCard

    def read(self, sequence: str, frame: int) -> StoredMap:
        """Read one file: PNG, NPY, NPZ or EXR."""
        return StoredMap(open_normals(self.files.path(sequence, frame), key=self.files.key), self.card.axes)

    def read_depth(self, sequence: str, frame: int) -> FloatMap:
        """Read one file: PNG (16 bits), NPY, NPZ, EXR or DPT."""
        return read_depth_file(self.files.path(sequence, frame), key=self.files.key)

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Name the files that are there by what tells git that a file is unchanged: size, times and inode.

        Reading all files to hash them costs a tenth of decoding them, and serves nobody but an interrupted run that
        goes on. A missing file is reported when it is read.
        """
        present = [path for frame in frames if (path := self._path(sequence, frame)) is not None]
        return digest({"files": [_unchanged(self.files.root, path) for path in present]})

    def record(self) -> dict[str, Any]:
        """Give the settings that the files were read with."""
        return {"folder": self.files.root.name, **self.files.model_dump(mode="json", exclude={"root"})}

    def _path(self, sequence: str, frame: int) -> Path | None:
        try:
            return self.files.path(sequence, frame)
        except NcbenchError:
            return None


def _unchanged(root: Path, path: Path) -> list[str | int]:
    found = path.stat()
    return [path.relative_to(root).as_posix(), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


@dataclass(frozen=True)
class FolderOptions:
    """What a user states about a plain folder.

    Attributes:
        axes: The axes of its normals; required, since nothing is guessed. Depth needs none.
        name: What the result is called; the folder's name where None.
        pattern: As in ``PredictionFiles``.
        key: As in ``PredictionFiles``.
        frame_offset: As in ``PredictionFiles``.
    """

    axes: AxesName | None = None
    name: str | None = None
    pattern: str | None = None
    key: str | None = None
    frame_offset: int = 0


def find_predictions(
    preds: str | Path, protocol: str, target: Store, predictions: Path, options: FolderOptions, task: str
) -> PredictionSource:
    """Open what the user named.

    Args:
        preds: A model's name (its store lies in ``predictions``), a prediction store, or a plain folder.
        protocol: Name of the protocol card.
        target: Store of the protocol's data set.
        predictions: Folder of prediction stores.
        options: What is stated about a plain folder.
        task: ``normals`` or ``depth``.

    Returns:
        The source.

    Raises:
        ScoreError: The store was made from other data or by another version of the model, or options are missing or
            out of place.
        NcbenchError: There is no such model, store or folder.
    """
    path = Path(preds)
    if path.is_dir() and not is_store(path):
        return _folder(path, options, task)
    if options != FolderOptions():
        raise ScoreError(
            f"{preds}: --axes, --name, --pattern, --key and --frame-offset describe a plain folder of files"
        )
    if is_store(path):
        # a store's card keeps the model's name, and its file is always called the same
        card = ModelCard.parse(read_yaml(path / CARD), str(path / CARD))
        return _stored(path, card, target, task)
    card = catalog.load(ModelCard, str(preds))
    return _stored(prediction_folder(predictions, card.name, protocol), card, target, task)


def _stored(folder: Path, card: ModelCard, target: Store, task: str) -> StoredPredictions:
    """Open a store; refuse one made from other data or by another version of the model than the cards name."""
    if not card.normals if task == "normals" else card.depth is None:
        other = "depth" if task == "normals" else "normals"
        raise ScoreError(f"model '{card.name}' answers with {other} alone: score it under a protocol for {other}")
    store = open_store(folder)
    run = read_run(folder)
    what = {"data_digest": "data", "model_digest": f"model card '{card.name}'"}
    for key, value in prediction_identity(card, target).items():
        if run.get(key) != value:
            raise ScoreError(
                f"{folder / RUN_FILE}: the predictions were made from another version of the {what[key]}. "
                "Predict again."
            )
    return StoredPredictions(store, card)


def _folder(path: Path, options: FolderOptions, task: str) -> FolderPredictions:
    if options.axes is None and task == "normals":
        raise ScoreError(
            f"{path}: say in which axes these normals are: --axes opencv (x right, y down, z forward), opengl (x "
            "right, y up, z back; Marigold, NormalCrafter), dsine (x left, y up, z back; DSINE, Lotus, StableNormal) "
            "or ldf. 'ncbench probe' says which one fits."
        )
    files = PredictionFiles(root=path, pattern=options.pattern, key=options.key, frame_offset=options.frame_offset)
    name = options.name or path.resolve().name.lower()
    settings = files.model_dump(mode="json", exclude={"root"})
    values = {"name": name, "version": "0.0.0", "title": options.name or path.resolve().name, "summary": ""}
    card = ModelCard.parse(
        values
        | {"kind": "predictions", "adapter": FOLDER_ADAPTER, "settings": settings, "axes": options.axes or "opencv"},
        where=f"predictions in {path} (--name must be lower-case letters, digits, '_', '.' or '-')",
    )
    return FolderPredictions(files, card)
