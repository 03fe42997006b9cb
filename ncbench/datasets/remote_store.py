"""Shards of a store behind a URL, fetched on first use into a bounded cache of files named by their hashes.

A cached shard is complete and the one that the manifest means, since its name is its sha256 and is given only after
the bytes were hashed; stores that share shards share files, and no file is ever stale. Processes share the cache: each
shard has a lock, under which it is fetched, opened and dropped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from filelock import FileLock, Timeout

from ncbench.datasets.manifest import MANIFEST, Manifest
from ncbench.datasets.shards import ShardRecord, open_shard
from ncbench.errors import NcbenchError, StoreError
from ncbench.files import replacing_file, write_bytes, writing

DEFAULT_CACHE_BYTES = 64 << 30
_BLOCK = 1 << 20
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def is_url(path: str) -> bool:
    """Say whether a string is a URL rather than a path of this machine."""
    return "://" in path


@dataclass(frozen=True)
class RemoteStore:
    """A store's URL and the cache for its shards.

    Attributes:
        url: Where the store lies, without a slash at the end.
        cache: Folder for the shards of all stores.
        limit: Bytes that the shards there may take; one shard always may.
    """

    url: str
    cache: Path
    limit: int

    @classmethod
    def at(cls, url: str, cache: str | Path | None, limit: int) -> Self:
        """Describe a store; the default cache is the user's.

        Raises:
            StoreError: The limit is not positive.
        """
        if limit < 1:
            raise StoreError(f"{url}: cache_bytes must be at least 1, got {limit}")
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "ncbench" / "shards" if cache is None else Path(cache)
        return cls(url.rstrip("/"), folder.absolute(), limit)

    def fetch_manifest(self) -> Path:
        """Fetch and check the manifest.

        Returns:
            A folder of the cache that holds it.

        Raises:
            StoreError: There is no such store, it cannot be read, or its manifest is damaged or too new.
        """
        folder = self.cache / f"store-{hashlib.sha256(self.url.encode()).hexdigest()[:32]}"
        with self._reading(MANIFEST) as (filesystem, path):
            content = bytes(filesystem.cat_file(path))
        write_bytes(folder / MANIFEST, content)
        try:
            Manifest.load(folder)
        except StoreError as error:
            raise StoreError(str(error).replace(str(folder / MANIFEST), f"{self.url}/{MANIFEST}")) from error
        return folder

    def open(self, record: ShardRecord) -> pa.Table:
        """Open a shard, fetching it where it is not in the cache.

        Raises:
            StoreError: The shard cannot be read, or is not what the manifest says.
        """
        path = self.cache / f"{record.sha256}.arrow"
        with writing(path):
            self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(path)):
            if not path.is_file():
                self._fetch(record, path)
            with suppress(OSError):  # the time of last use; a read-only cache still serves
                os.utime(path)
            return open_shard(path)

    def _fetch(self, record: ShardRecord, to: Path) -> None:
        self._make_room(record.bytes, to)
        found = hashlib.sha256()
        with replacing_file(to) as temporary, self._reading(record.file) as (filesystem, path):
            with temporary.open("wb") as target, filesystem.open(path, "rb") as source:
                while block := source.read(_BLOCK):
                    found.update(block)
                    target.write(block)
            if found.hexdigest() != record.sha256:
                raise StoreError(
                    f"{self.url}/{record.file}: is damaged or another store's: expected {record.bytes} bytes with "
                    f"sha256 {record.sha256}, got sha256 {found.hexdigest()}. Upload the store again."
                )

    def _make_room(self, wanted: int, keep: Path) -> None:
        """Drop what was not used for longest; a file that another process is opening stays."""
        known = sorted((stat.st_mtime, stat.st_size, path) for path, stat in _shards(self.cache))
        excess = sum(size for _, size, _ in known) + wanted - self.limit
        for _, size, path in known:
            if excess <= 0 or path == keep:
                break
            with suppress(Timeout, OSError), FileLock(_lock(path), timeout=0):
                path.unlink()  # who has it open keeps the memory
                excess -= size

    @contextmanager
    def _reading(self, file: str) -> Iterator[tuple[Any, str]]:
        """Give fsspec's filesystem and path of a file, and put what goes wrong into words."""
        url = f"{self.url}/{file}"
        scheme = url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # fsspec ships no types

            filesystem, path = url_to_fs(url)
            yield filesystem, str(path)
        except NcbenchError:
            raise
        except FileNotFoundError as error:
            raise StoreError(f"{url}: there is no such file. Check the URL, or upload the store again.") from error
        except ImportError as error:
            package = _PACKAGES.get(scheme, "fsspec[full]")
            raise StoreError(f"{url}: {scheme}:// needs a package ({error}). Run 'pip install {package}'.") from error
        except Exception as error:  # each storage's library raises types of its own
            raise StoreError(
                f"{url}: cannot be read ({type(error).__name__}: {error}). Check the URL, the network and your own "
                "credentials for this storage."
            ) from error


def _shards(cache: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in cache.glob("*.arrow"):
        with suppress(OSError):  # another process dropped it
            yield path, path.stat()


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")
