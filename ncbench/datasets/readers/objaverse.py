"""Objaverse 1.0 (Deitke et al., CVPR 2023): 3D objects as GLB, rendered here into orbit videos with exact truth.

NormalCrafter trained on videos of Objaverse with random continuous cameras and diverse light, and published neither;
the camera and the light here are our own, seeded by the object's name.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from ncbench.cards import digest
from ncbench.datasets.formats.arrays import DAMAGED, read_bytes
from ncbench.datasets.formats.objaverse_glb import Mesh, read_glb
from ncbench.datasets.frame import Frame, Skipped
from ncbench.datasets.readers.base import hash_files
from ncbench.datasets.readers.layout import require_folder, require_known
from ncbench.datasets.readers.objaverse_camera import OrbitRule, make_orbit
from ncbench.datasets.readers.objaverse_render import View, render_flow, render_geometry, render_picture
from ncbench.datasets.readers.objaverse_tracer import NormalKind, Tracer
from ncbench.errors import SourceError
from ncbench.geometry.cameras import field_of_view_intrinsics
from ncbench.settings import Settings

UNKNOWN = "unknown"
"""Licence of an object that the metadata do not list."""

_REMEDY = "Keep the folders of the release: glbs/000-NNN/<uid>.glb and metadata/000-NNN.json.gz"
_MOST_METADATA = 1 << 29  # bytes of one unpacked metadata file


class ObjaverseSettings(Settings):
    """Settings of :class:`ObjaverseReader`.

    Attributes:
        axes: Axes of the rendered normals; only ``opencv``, since no file holds any.
        seed: Seed of all cameras and lights.
        frames: Length of each clip.
        height: Picture's height in pixels.
        width: Picture's width in pixels.
        orbit: The camera's path.
        radius: Metres to which the object's ball is scaled.
        normals: ``smooth``: vertex normals, interpolated, on the visible side; ``face``: those of the triangles.
        background: sRGB colour behind the object.
        samples: Rays along each side of a pixel for the picture.
        licences: Licences to keep, such as ``by`` and ``cc0``; None keeps all, ``unknown`` too.
        include: File beside the objects with the uids to read, one a line; None reads all.
        exclude: File with uids to leave out, such as broken objects.
        blend_cutoff: Alpha from which on a blended material counts as a surface; below it, rays pass. Masked materials
            name their own cutoff.
        max_faces: Most triangles of an object.
        skip_broken: Leave out objects whose file is damaged, and say so, instead of stopping at the first.
        flow: Compute flow and occlusion.
    """

    axes: Literal["opencv"] = "opencv"
    seed: int = Field(default=0, ge=0)
    frames: int = Field(default=24, ge=1, le=9999)
    height: int = Field(default=512, ge=8, le=8192)
    width: int = Field(default=512, ge=8, le=8192)
    orbit: OrbitRule = OrbitRule()
    radius: float = Field(default=0.5, gt=0)
    normals: NormalKind = "smooth"
    background: tuple[int, int, int] = (255, 255, 255)
    samples: int = Field(default=2, ge=1, le=8)
    licences: tuple[str, ...] | None = Field(default=None, min_length=1)
    include: str | None = None
    exclude: str | None = None
    blend_cutoff: float = Field(default=0.5, gt=0, le=1)
    max_faces: int = Field(default=5_000_000, ge=1)
    skip_broken: bool = False
    flow: bool = True


class ObjaverseReader:
    """Renders objects; a sequence is one object, named by its uid, its frames count from 0.

    ``extra`` holds the object's own licence: the collection's licence does not cover the objects.

    Args:
        root: Folder with ``glbs`` and ``metadata``, or simply with GLB files (their licence is then unknown).
        settings: See :class:`ObjaverseSettings`.

    Raises:
        CardError: A setting is wrong.
        SourceError: There are no objects, or a list of uids cannot be read.
    """

    normal_source: Literal["analytic"] = "analytic"

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self._settings = ObjaverseSettings.parse(settings, "Objaverse reader")
        self._root = require_folder(Path(root), "Objaverse objects", _REMEDY)
        files = sorted(self._root.glob("glbs/*/*.glb")) or sorted(self._root.glob("*.glb"))
        included, excluded = (self._uids(name) for name in (self._settings.include, self._settings.exclude))
        self._files = {
            path.stem: path
            for path in files
            if (included is None or path.stem in included) and path.stem not in (excluded or ())
        }
        if not self._files:
            raise SourceError.at(self._root, "expected objects glbs/000-NNN/<uid>.glb, found none to read", _REMEDY)
        self._licences: dict[str, Mapping[str, str]] = {}

    def sequences(self) -> Mapping[str, Sequence[int]]:
        """List the objects with a licence that the settings keep: uid -> frames from 0."""
        wanted, frames = self._settings.licences, tuple(range(self._settings.frames))
        return {uid: frames for uid in self._files if wanted is None or self._licence(uid) in wanted}

    def read(self, sequence: str, frames: Sequence[int]) -> Iterator[Frame | Skipped]:
        """Render frames of one object.

        Args:
            sequence: Its uid.
            frames: Frames, in the order wanted.

        Yields:
            Canonical frames; ``extra`` holds ``licence``. A pixel is valid where its centre shows the object. With
            ``skip_broken``, a ``Skipped`` in place of each frame of a damaged object.

        Raises:
            SourceError: The file is damaged, too large, or holds no triangles, and ``skip_broken`` is not set.
        """
        self._require(sequence, frames)
        settings = self._settings
        picture = settings.height, settings.width
        path = self._files[sequence]
        try:
            mesh = _centred(path, read_glb(path, settings.max_faces, settings.blend_cutoff), settings.radius)
        except SourceError as error:
            if not settings.skip_broken:
                raise
            reason = " ".join(str(error).replace(str(path), path.relative_to(self._root).as_posix()).split())
            yield from (Skipped(sequence, index, reason) for index in frames)
            return
        tracer = Tracer(mesh)
        orbit = make_orbit(settings.orbit, settings.seed, sequence, settings.frames, settings.radius, picture)
        intrinsics = field_of_view_intrinsics(*picture, settings.orbit.field_of_view)
        views = [View(intrinsics, pose, *picture) for pose in orbit.poses]
        for index in frames:
            geometry = render_geometry(tracer, views[index], settings.normals)
            flow, occluded = None, None
            if settings.flow and index + 1 < settings.frames:
                flow, occluded = render_flow(tracer, geometry.points, views[index + 1])
            pixels = render_picture(tracer, views[index], orbit.light, settings.background, settings.samples)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
            yield Frame(
                sequence=sequence,
                frame=index,
                image=buffer.getvalue(),
                normal=geometry.normal,
                valid=geometry.valid,
                depth=geometry.depth,
                flow=flow,
                occluded=occluded,
                intrinsics=intrinsics,
                cam_to_world=views[index].cam_to_world,
                extra={"licence": self._licence(sequence)},
            )

    def fingerprint(self, sequence: str, frames: Sequence[int]) -> str:
        """Hash the object's file and its licence."""
        self._require(sequence, frames)
        source = hash_files(self._root, [self._files[sequence]])
        return digest({"object": source, "licence": self._licence(sequence)})

    def extra_features(self) -> Mapping[str, Any]:
        """Name the card-specific columns: ``licence``."""
        import pyarrow as pa

        return {"licence": pa.string()}

    def _require(self, sequence: str, frames: Sequence[int]) -> None:
        known = dict.fromkeys(self._files, tuple(range(self._settings.frames)))
        require_known(self._root, known, sequence, frames)

    def _uids(self, name: str | None) -> frozenset[str] | None:
        if name is None:
            return None
        text = read_bytes(self._root / name, "a list of uids, one a line").decode("utf-8", errors="replace")
        return frozenset(text.split())

    def _licence(self, uid: str) -> str:
        shard = self._files[uid].parent
        if shard.parent.name != "glbs":
            return UNKNOWN
        if shard.name not in self._licences:
            self._licences[shard.name] = _read_licences(self._root / "metadata" / f"{shard.name}.json.gz")
        return self._licences[shard.name].get(uid, UNKNOWN)


def _read_licences(path: Path) -> Mapping[str, str]:
    """Uid -> licence of one metadata file."""
    content = read_bytes(path, "the metadata of these objects, with their licences")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            text = stream.read(_MOST_METADATA)
        return {uid: str(entry.get("license") or UNKNOWN) for uid, entry in json.loads(text).items()}
    except (OSError, EOFError, ValueError, AttributeError, RecursionError, zlib.error) as error:
        problem = f"expected gzipped JSON, uid -> metadata with 'license' ({error!r})"
        raise SourceError.at(path, problem, DAMAGED) from error


def _centred(path: Path, mesh: Mesh, radius: float) -> Mesh:
    """Bring the middle of the bounding box to the origin and scale to a ball of the given radius."""
    used = mesh.vertices[np.unique(mesh.faces)]
    middle = 0.5 * (used.min(axis=0) + used.max(axis=0))
    extent = float(np.linalg.norm(used - middle, axis=-1).max())
    if not 1e-12 < extent < 1e12:
        raise SourceError.at(path, f"expected an object of some extent, found a radius of {extent:.3g}", DAMAGED)
    return dataclasses.replace(mesh, vertices=(mesh.vertices - middle) * (radius / extent))
