"""Any program as a model: frames go into a folder, the program runs in its own environment, its files come back.

A program whose packages clash with ours, or that is not Python at all, so joins without a line of code here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ncbench.cards import digest
from ncbench.datasets.formats.images import read_depth_file
from ncbench.datasets.formats.normal_maps import read_normal_file
from ncbench.datasets.frame import FloatMap
from ncbench.datasets.readers.base import hash_files
from ncbench.errors import ModelError, NcbenchError
from ncbench.files import write_json, writing
from ncbench.geometry.encoding import colour_problem
from ncbench.models.adapters.process import run_command
from ncbench.models.base import Answer, Clip, NormalModel, Runtime
from ncbench.models.predictions import PredictionFiles
from ncbench.settings import Settings

MANIFEST = "clip.json"
SCHEMA = 1
_SHOWN = 5
_DONE = "done.txt"
_QUICK_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class CommandSettings(Settings):
    """What is run, and what it leaves.

    Attributes:
        command: Program and arguments. ``{input}``, ``{output}``, ``{device}`` and ``{seed}`` are filled in; no shell
            reads it.
        pattern: The file of normals of each frame within ``{output}``, as in ``predictions``; null for a program that
            writes depth alone.
        depth: The file of depth of each frame; null where there is none.
        key: The array's name inside NPZ files that hold several.
        timeout_seconds: For one sequence.
        folder: Where the program runs; the current folder where null.
        environment: Variables that it gets besides ours; null takes one away.
        depends: Files that the answers depend on, such as the script: when one changes, all is predicted again.
        work: Folder for what is exchanged. A sequence's part is removed once its answers were read to the end.
        keep: Whether to leave it there, to look at.
    """

    command: list[str] = Field(min_length=1)
    pattern: str | None = "{frame:06d}.npy"
    depth: str | None = None
    key: str | None = None
    timeout_seconds: float = Field(default=3600.0, gt=0)
    folder: Path | None = None
    environment: dict[str, str | None] = Field(default_factory=dict)
    depends: list[Path] = Field(default_factory=list)
    work: Path = Path("data/commands")
    keep: bool = False

    @model_validator(mode="after")
    def _names_both_folders(self) -> CommandSettings:
        words = " ".join(self.command)
        if "{input}" not in words or "{output}" not in words:
            raise ValueError("'command' must name {input} and {output}, the folders to read and to write")
        if self.pattern is None and self.depth is None:
            raise ValueError("name the files that the program writes: 'pattern' for normals, 'depth', or both")
        return self


@dataclass(frozen=True)
class _Exchange:
    """The folders of one sequence."""

    root: Path
    sequence: str

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def done(self) -> Path:
        return self.root / _DONE

    @property
    def log(self) -> Path:
        return self.root / "log.txt"


class Command(NormalModel):
    """Exports a sequence, runs the user's program on it, and reads what it wrote.

    ``{input}`` holds ``images/000000.png`` and so on and ``clip.json``, which names everything: ``sequence``,
    ``height``, ``width``, ``fps``, ``seed``, ``device``, and for each of ``frames`` its ``frame`` (index), ``image``
    (path) and ``intrinsics`` (3x3, pixels; null where unknown). The program writes one file for each frame into
    ``{output}``, at input size.

    It runs once a sequence. Where it ended well and reading its answers was interrupted, the next run reads them
    again instead of running it; in any other case it starts with an empty output folder, so that nothing half-written
    is ever read.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = CommandSettings.parse(settings, where="model adapter Command, settings")

    def load(self, runtime: Runtime) -> None:
        """Keep the runtime; the program loads its own weights."""
        super().load(runtime)
        self.device = f"command, {runtime.device}"

    def predict(self, clip: Clip) -> Answer:
        """Run the program on one clip alone."""
        return next(self.stream([clip]))

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:  # noqa: ARG002 - the same for all
        """Hash the files that the card says the answers depend on."""
        if not self.settings.depends:
            return ""
        files = [path.absolute() for path in self.settings.depends]
        return hash_files(Path(os.path.commonpath([path.parent for path in files])), files)

    def stream(self, clips: Iterable[Clip]) -> Iterator[Answer]:
        """Export all clips, run the program once, then read its answers clip by clip."""
        work = self.settings.work.absolute() / digest({"command": self.settings.command})[:12]
        taken = iter(clips)
        first = next(taken, None)
        if first is None:
            return
        exchange = _Exchange(work / urllib.parse.quote(first.sequence, safe="").replace(".", "%2E"), first.sequence)
        with writing(work):
            work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / f"{exchange.root.name}.lock"):
            size = (first.images.shape[1], first.images.shape[2])
            parts, content = self._export(chain([first], taken), exchange)
            if not _holds(exchange.done, content):
                self._run(exchange, [frame for part in parts for frame in part])
                with writing(exchange.done):
                    exchange.done.write_text(content, encoding="utf-8")
            try:
                for part in parts:
                    yield self._read(exchange, part, size)
            except NcbenchError:
                exchange.done.unlink(missing_ok=True)  # its answers are unusable: run it again, once it is mended
                raise
            if not self.settings.keep:
                shutil.rmtree(exchange.root, ignore_errors=True)

    def _export(self, clips: Iterable[Clip], exchange: _Exchange) -> tuple[list[tuple[int, ...]], str]:
        """Write the input folder; return the frames of each clip and a digest of all that was written."""
        hashed = hashlib.sha256()
        parts: list[tuple[int, ...]] = []
        entries: list[dict[str, Any]] = []
        values: dict[str, Any] = {"schema": SCHEMA, "seed": self.runtime.seed, "device": self.runtime.device}
        with writing(exchange.input):
            shutil.rmtree(exchange.input, ignore_errors=True)
            (exchange.input / "images").mkdir(parents=True)
            for clip in clips:
                parts.append(clip.frames)
                height, width = clip.images.shape[1:3]
                values |= {"sequence": clip.sequence, "height": height, "width": width, "fps": clip.fps}
                hashed.update(clip.images.tobytes())
                for i, frame in enumerate(clip.frames):
                    name = f"images/{frame:06d}.png"
                    _write_png(exchange.input / name, clip.images[i])
                    intrinsics = None if clip.intrinsics is None else clip.intrinsics[i].tolist()
                    entries.append({"frame": frame, "image": name, "intrinsics": intrinsics})
        values["frames"] = entries
        write_json(exchange.input / MANIFEST, values)
        parameters = self.settings.model_dump(mode="json", exclude={"work", "keep", "timeout_seconds"})
        programs = {"files": self._stamps(), "depends": self.fingerprint("", ())}
        hashed.update(digest({"clip": values, "settings": parameters, **programs}).encode())
        return parts, hashed.hexdigest()

    def _stamps(self) -> list[list[Any]]:
        """Name the files on the command line by size and time: an edited script is run again."""
        folder = self.settings.folder or Path()
        paths = [folder / word for word in self.settings.command if "{" not in word and (folder / word).is_file()]
        return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]

    def _run(self, exchange: _Exchange, frames: Sequence[int]) -> None:
        with writing(exchange.output):
            exchange.done.unlink(missing_ok=True)
            shutil.rmtree(exchange.output, ignore_errors=True)
            exchange.output.mkdir()
        words = {
            "{input}": str(exchange.input),
            "{output}": str(exchange.output),
            "{device}": self.runtime.device,
            "{seed}": str(self.runtime.seed),
        }
        chosen = {name: value for name, value in self.settings.environment.items() if value is not None}
        ours = {name: value for name, value in os.environ.items() if name not in self.settings.environment}
        run_command(
            [_filled(word, words) for word in self.settings.command],
            exchange.log,
            self.settings.timeout_seconds,
            self.settings.folder,
            ours | chosen,
        )
        for pattern in filter(None, (self.settings.pattern, self.settings.depth)):
            _check_count(exchange, pattern, frames)

    def _read(self, exchange: _Exchange, frames: Sequence[int], size: tuple[int, int]) -> Answer:
        key = self.settings.key

        def read_all(pattern: str | None, read: Callable[[Path, str | None], FloatMap]) -> FloatMap | None:
            if pattern is None:
                return None
            files = PredictionFiles(root=exchange.output, pattern=pattern)
            paths = [files.path(exchange.sequence, frame) for frame in frames]
            return np.stack([_sized(path, read(path, key), size) for path in paths])

        return Answer(read_all(self.settings.pattern, _normals_in), read_all(self.settings.depth, _depth_in))


def _normals_in(path: Path, key: str | None) -> FloatMap:
    normal, valid = read_normal_file(path, key=key)
    problem = colour_problem(normal)
    if problem:
        raise ModelError(f"{path}: {problem}.")
    return np.where(valid[..., None], normal, np.float32(0))


def _depth_in(path: Path, key: str | None) -> FloatMap:
    return read_depth_file(path, key=key)


def _sized(path: Path, array: FloatMap, size: tuple[int, int]) -> FloatMap:
    if array.shape[:2] != size:
        raise ModelError(
            f"{path}: expected {size[0]}x{size[1]} (height x width, the size of the picture), found "
            f"{array.shape[0]}x{array.shape[1]}. The command must write answers at input size."
        )
    return array


def _check_count(exchange: _Exchange, pattern: str, frames: Sequence[int]) -> None:
    """Refuse an output folder that lacks files, or that holds more of the same kind than frames."""
    files = PredictionFiles(root=exchange.output, pattern=pattern)
    expected = {files.candidate(pattern, exchange.sequence, frame) for frame in frames}
    folders = {path.parent for path in expected if path.parent.is_dir()}
    found = {path for folder in folders for path in folder.iterdir() if path.suffix == Path(pattern).suffix}
    if found == expected:
        return
    told = []
    for word, paths in (("missing", expected - found), ("not asked for", found - expected)):
        names = sorted(path.relative_to(exchange.output).as_posix() for path in paths)
        if names:
            told.append(f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''} {word}")
    raise ModelError(
        f"{exchange.output}: the command ended well, but left {len(found)} files for {len(expected)} frames: "
        f"{'; '.join(told)}. It must write one '{pattern}' for each frame ('pattern' and 'depth' of its card say how "
        f"files are called). Its log: {exchange.log}"
    )


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    done, coded = cv2.imencode(".png", image[..., ::-1], _QUICK_PNG)
    if not done:
        raise ModelError(f"{path}: a picture of shape {image.shape} cannot be written as PNG")
    path.write_bytes(coded.tobytes())


def _filled(word: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word


def _holds(path: Path, content: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == content
