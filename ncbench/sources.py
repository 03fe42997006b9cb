"""Where official files come from: the ``source`` block of a data set card, and the ``weights`` of a model card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from ncbench.errors import CardError
from ncbench.settings import Settings, suggest

Attribute = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Unpack = Literal["zip", "tar", "none"]

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"  # never "..", never hidden, never absolute
FileName = Annotated[str, StringConstraints(pattern=rf"^({_PART})?$")]
SubFolder = Annotated[str, StringConstraints(pattern=rf"^({_PART}(/{_PART})*)?$")]

_SCHEMES = ("file", "gs", "hf", "http", "https", "s3")
_SCENE = "{scene}"
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

# relative, and no part begins with a dot: a card must not reach out of its folder of weights
WeightFile = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*(/\w[\w.+-]*)*$")]


class Licence(Settings):
    """Under what terms data or weights may be used and passed on."""

    name: str
    redistribution: bool
    note: str = ""


class Download(Settings):
    """One official file.

    Attributes:
        url: Where it lies, without user name and password.
        name: File name here; by default the last part of the URL.
        bytes: Published size.
        sha256: Published checksum.
        unpack: How to unpack it; by default from the ending of the name (``.zip``, ``.tar`` and so on, else ``none``).
        to: Folder below the raw folder that the file or the archive's content goes into.
        scenes: Scenes that the file is needed for; empty means all of them.
        join: Name of the archive that this file is one part of; parts are concatenated in the order of the list.
    """

    url: str
    name: FileName = ""
    bytes: Annotated[int, Field(ge=0)] | None = None
    sha256: Sha256 | None = None
    unpack: Unpack | None = None
    to: SubFolder = ""
    scenes: list[str] = Field(default_factory=list)
    join: FileName = ""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        if isinstance(values, dict) and isinstance(values.get("url"), str) and not values.get("name"):
            last = PurePosixPath(unquote(urlsplit(values["url"]).path)).name
            return values | {"name": last if re.fullmatch(_PART, last) else ""}
        return values

    @field_validator("url")
    @classmethod
    def _without_credentials(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "hf" and "@" in parts.netloc:  # in hf:// the @ leads a revision
            raise ValueError("a card holds no user name or password; docs/fetch.md says where they go")
        return url

    @property
    def key(self) -> str:
        """Relative path that identifies the file within its data set."""
        return str(PurePosixPath(self.to) / self.name)

    @property
    def unit(self) -> str:
        """Relative path of what is stored or unpacked as one: the file, or the archive that it is a part of."""
        return str(PurePosixPath(self.to) / (self.join or self.name))

    @property
    def packing(self) -> Unpack:
        """How the file, or the archive that it is a part of, is unpacked."""
        if self.unpack is not None:
            return self.unpack
        name = (self.join or self.name).lower()
        if name.endswith(".zip"):
            return "zip"
        return "tar" if name.endswith(_TAR_ENDINGS) else "none"


def _expand(values: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """Write an entry that mentions ``{scene}`` once for each of its scenes."""
    if not isinstance(values, list):
        return values
    return [item for entry in values for item in _expand_entry(entry)]


def _expand_entry(entry: Any) -> list[Any]:  # noqa: ANN401 - whatever the YAML holds
    if not isinstance(entry, dict) or not any(_SCENE in text for text in entry.values() if isinstance(text, str)):
        return [entry]
    if not entry.get("scenes"):
        raise ValueError(f"{entry.get('url')}: {_SCENE} needs a list of scenes")
    if entry.get("bytes") is not None or entry.get("sha256") is not None:
        raise ValueError(f"{entry.get('url')}: bytes and sha256 belong to one file; list the files one by one")

    def filled(value: Any, scene: str) -> Any:  # noqa: ANN401 - whatever the YAML holds
        return value.replace(_SCENE, scene) if isinstance(value, str) else value

    return [
        {key: filled(value, scene) for key, value in entry.items()} | {"scenes": [scene]} for scene in entry["scenes"]
    ]


Downloads = Annotated[list[Download], BeforeValidator(_expand)]


class GeneratedSource(Settings):
    """Files that code writes here: a rendered miniature, or samples that an installed package carries."""

    kind: Literal["generate"]
    generator: Attribute
    settings: dict[str, Any] = Field(default_factory=dict)


class ManualSource(Settings):
    """Files that the user obtains: registration, signed terms, or a plain download page."""

    kind: Literal["manual"]
    instructions: str
    downloads: Downloads = Field(default_factory=list)


class DownloadSource(Settings):
    """Files that anybody may download without agreeing to terms first."""

    kind: Literal["download"]
    downloads: Annotated[Downloads, Field(min_length=1)]
    instructions: str = ""

    @model_validator(mode="after")
    def _can_be_fetched(self) -> DownloadSource:
        seen: dict[str, str] = {}
        for item in self.downloads:
            if urlsplit(item.url).scheme not in _SCHEMES:
                raise ValueError(f"{item.url}: the URL must start with one of {', '.join(_SCHEMES)}")
            if not item.name:
                raise ValueError(f"{item.url}: ends in no plain file name; give the file a 'name'")
            if item.key.casefold() in seen:
                raise ValueError(f"{item.url} and {seen[item.key.casefold()]} would both become {item.key}; set 'name'")
            seen[item.key.casefold()] = item.url
            if item.join and item.packing != "tar":
                raise ValueError(f"{item.url}: 'join' is for the parts of a tar, and {item.join} is none")
        return self


Source = Annotated[GeneratedSource | ManualSource | DownloadSource, Field(discriminator="kind")]


class Weights(Settings):
    """Pinned weights of a learned model.

    ``files`` are all files that the adapter reads, relative to the repository's root, each with its sha256, or null
    where nobody published it. ``revision`` is best a commit's full hash, which nobody can move. Files that lie
    ``elsewhere`` than on the Hugging Face Hub are taken from the user's own folder; ``homepage`` says where they are.
    Those of a ``local`` host are what a recipe of this project has made: ``repository`` is the folder, seen from where
    the command runs, and ``homepage`` says how to make them.
    """

    repository: str
    revision: str
    files: dict[WeightFile, Sha256 | None] = Field(min_length=1)
    licence: Licence
    host: Literal["huggingface", "elsewhere", "local"] = "huggingface"
    homepage: str = ""

    @property
    def address(self) -> str:
        """Where a person gets the files."""
        at_hub = f"https://huggingface.co/{self.repository}/tree/{self.revision}"
        return self.homepage or (at_hub if self.host == "huggingface" else self.repository)


def select(downloads: Sequence[Download], scenes: Iterable[str] | None, where: str) -> list[Download]:
    """Keep the files that some scenes need.

    Args:
        downloads: All files of a card.
        scenes: Names, or shell patterns such as ``ai_001_*``; None means everything.
        where: The card's name, for the message.

    Returns:
        The files that name one of the scenes, and all files that name none, in the card's order.

    Raises:
        CardError: A name or pattern matches no scene of the card.
    """
    if scenes is None:
        return list(downloads)
    known = {scene for item in downloads for scene in item.scenes}
    wanted: set[str] = set()
    for pattern in scenes:
        matches = {scene for scene in known if fnmatchcase(scene, pattern)}
        if not matches:
            raise CardError(f"{where}: no scene is called {pattern!r}. {suggest(pattern, known)}")
        wanted |= matches
    return [item for item in downloads if not item.scenes or wanted.intersection(item.scenes)]
