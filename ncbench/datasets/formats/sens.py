"""ScanNet's ``.sens`` container, version 4, read a frame at a time.

Little-endian: u32 version; u64 length and the sensor's name; four float32 4 x 4 matrices (colour intrinsics and
extrinsics, depth intrinsics and extrinsics); i32 compression of colour and of depth; u32 colour width and height, depth
width and height; f32 stored units a metre; u64 number of frames. A frame: float32 4 x 4 camera-to-world, u64 times of
colour and depth, u64 bytes of colour and depth, then both blobs. (``SensReader/c++/src/sensorData.h`` of ScanNet.) IMU
records follow the frames; they are not read. Files hold gigabytes, so only what is asked for is read.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncbench.datasets.formats.arrays import DAMAGED, MAX_PIXELS
from ncbench.datasets.frame import Matrix
from ncbench.errors import SourceError

VERSION = 4
COLOUR_COMPRESSIONS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSIONS = {0: "raw", 1: "zlib"}

_START = struct.Struct("<IQ")
_FIXED = struct.Struct("<64fiiIIIIfQ")
_RECORD = struct.Struct("<16fQQQQ")
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class SensHeader:
    """What a ``.sens`` file says of all its frames.

    Attributes:
        sensor: Name of the device.
        intrinsic_color: (4, 4) projection of the colour camera, pixels.
        extrinsic_color: (4, 4) colour camera to the rig's base frame.
        intrinsic_depth: (4, 4) projection of the depth camera, pixels.
        extrinsic_depth: (4, 4) depth camera to the rig's base frame.
        color_compression: ``raw``, ``png`` or ``jpeg``.
        depth_compression: ``raw`` or ``zlib``.
        color_size: Height and width of the pictures.
        depth_size: Height and width of the depth maps.
        depth_shift: Stored units a metre.
        frames: Number of frames.
    """

    sensor: str
    intrinsic_color: Matrix
    extrinsic_color: Matrix
    intrinsic_depth: Matrix
    extrinsic_depth: Matrix
    color_compression: str
    depth_compression: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float
    frames: int


class _Record(NamedTuple):
    """Where one frame lies: its first byte, and the sizes of its two blobs."""

    start: int
    color_bytes: int
    depth_bytes: int

    @property
    def end(self) -> int:
        return self.start + _RECORD.size + self.color_bytes + self.depth_bytes


class SensFile:
    """Random and sequential access to the frames of a ``.sens`` file; no more than one frame is in memory.

    Frames carry no table of contents, so their places are found by stepping over the frames before them, once.

    Args:
        path: The file.

    Raises:
        SourceError: Unreadable, another version, or a header that cannot be true.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                self._size = path.stat().st_size
                self.header = self._read_header(stream)
                self._records: list[_Record] = []
                self._first = self._next = stream.tell()
        except OSError as error:
            problem = f"expected a .sens file, but it cannot be read ({error.strerror})"
            raise SourceError.at(path, problem, DAMAGED) from error

    def pose(self, frame: int) -> Matrix | None:
        """Give a frame's pose.

        Args:
            frame: Index, from 0.

        Returns:
            (4, 4) float64 camera-to-world, metres; None where tracking was lost (stored as minus infinity).

        Raises:
            SourceError: No such frame, or the file is damaged.
        """
        values = np.frombuffer(self._bytes(self._record(frame).start, 64), dtype="<f4").astype(np.float64)
        return values.reshape(4, 4) if np.isfinite(values).all() else None

    def color(self, frame: int) -> bytes:
        """Give a frame's picture as stored: PNG or JPEG bytes, or raw RGB.

        Raises:
            SourceError: No such frame, or the file is damaged.
        """
        record = self._record(frame)
        content = self._bytes(record.start + _RECORD.size, record.color_bytes)
        height, width = self.header.color_size
        if self.header.color_compression == "raw" and len(content) != 3 * height * width:
            raise self._broken(f"frame {frame}: expected {3 * height * width} bytes of RGB, found {len(content)}")
        return content

    def depth(self, frame: int) -> NDArray[np.uint16]:
        """Give a frame's depth.

        Args:
            frame: Index, from 0.

        Returns:
            (H, W) uint16 in units of 1 / ``depth_shift`` metres, 0 where unknown.

        Raises:
            SourceError: No such frame, or the file is damaged.
        """
        record = self._record(frame)
        content = self._bytes(record.start + _RECORD.size + record.color_bytes, record.depth_bytes)
        height, width = self.header.depth_size
        expected = 2 * height * width
        if self.header.depth_compression == "zlib":
            content = self._inflate(content, expected, frame)
        if len(content) != expected:
            raise self._broken(f"frame {frame}: expected {expected} bytes of depth, found {len(content)}")
        return np.frombuffer(content, dtype="<u2").astype(np.uint16).reshape(height, width)

    def head(self) -> bytes:
        """Give all bytes before the first frame.

        Raises:
            SourceError: The file is damaged.
        """
        return self._bytes(0, self._first)

    def record(self, frame: int) -> bytes:
        """Give all bytes of one frame as stored.

        Raises:
            SourceError: No such frame, or the file is damaged.
        """
        place = self._record(frame)
        return self._bytes(place.start, place.end - place.start)

    def _read_header(self, stream: IO[bytes]) -> SensHeader:
        version, length = _START.unpack(self._take(stream, _START.size))
        if version != VERSION:
            raise self._broken(f"expected version {VERSION} of .sens, found {version}")
        if length > _MAX_NAME:
            raise self._broken(f"expected a sensor's name of at most {_MAX_NAME} bytes, found {length}")
        name = self._take(stream, length).decode("utf-8", errors="replace")
        values = _FIXED.unpack(self._take(stream, _FIXED.size))
        matrices = np.array(values[:64], dtype=np.float64).reshape(4, 4, 4)
        color_kind, depth_kind, color_width, color_height, depth_width, depth_height, shift, frames = values[64:]
        if color_kind not in COLOUR_COMPRESSIONS or depth_kind not in DEPTH_COMPRESSIONS:
            raise self._broken(
                f"expected colour compression {COLOUR_COMPRESSIONS} and depth compression {DEPTH_COMPRESSIONS}, found "
                f"{color_kind} and {depth_kind}"
            )
        sizes = ((color_height, color_width), (depth_height, depth_width))
        if not all(0 < height * width <= MAX_PIXELS for height, width in sizes):
            raise self._broken(f"expected pictures of 1 to {MAX_PIXELS} pixels, found (height, width) {sizes}")
        if not (np.isfinite(matrices).all() and 0 < shift < 1e9):
            raise self._broken(f"expected finite camera matrices and a positive depth shift, found {shift}")
        if frames * _RECORD.size > self._size:
            raise self._broken(f"claims {frames} frames, which {self._size} bytes cannot hold")
        kinds = COLOUR_COMPRESSIONS[color_kind], DEPTH_COMPRESSIONS[depth_kind]
        return SensHeader(
            name, matrices[0], matrices[1], matrices[2], matrices[3], *kinds, *sizes, float(shift), int(frames)
        )

    def _record(self, frame: int) -> _Record:
        if not 0 <= frame < self.header.frames:
            raise self._broken(f"has frames 0 to {self.header.frames - 1}, not {frame}", "Correct the list of frames")
        if frame >= len(self._records):
            self._find_records(frame)
        return self._records[frame]

    def _find_records(self, last: int) -> None:
        try:
            with self.path.open("rb") as stream:
                while len(self._records) <= last:
                    stream.seek(self._next)
                    *_, color_bytes, depth_bytes = _RECORD.unpack(self._take(stream, _RECORD.size))
                    record = _Record(self._next, color_bytes, depth_bytes)
                    if record.end > self._size:
                        number = len(self._records)
                        raise self._broken(f"frame {number} ends at byte {record.end}, the file at {self._size}")
                    self._records.append(record)
                    self._next = record.end
        except OSError as error:
            raise self._broken(f"cannot be read ({error.strerror})") from error

    def _bytes(self, start: int, count: int) -> bytes:
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                return self._take(stream, count)
        except OSError as error:
            raise self._broken(f"cannot be read ({error.strerror})") from error

    def _take(self, stream: IO[bytes], count: int) -> bytes:
        content = stream.read(count) if count <= self._size else b""
        if len(content) != count:
            raise self._broken(f"expected {count} more bytes at byte {stream.tell()}, but it ends there")
        return content

    def _inflate(self, content: bytes, expected: int, frame: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            plain = stream.decompress(content, expected + 1)  # one more, so that too much is noticed, not stored
        except zlib.error as error:
            raise self._broken(f"the depth of frame {frame} does not decompress ({error})") from error
        if not stream.eof:
            raise self._broken(f"the depth of frame {frame} is cut off or longer than {expected} bytes")
        return plain

    def _broken(self, problem: str, remedy: str = DAMAGED) -> SourceError:
        return SourceError.at(self.path, problem, remedy)
