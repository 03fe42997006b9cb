"""Where cards lie: the shipped folders, folders of other packages, and the current directory.

Order of precedence: the folders ``datasets/ models/ evaluators/ loaders/ recipes/ reports/`` of the current directory,
then packages that declare an entry point in the group ``ncbench.catalogs`` (its value names a package that holds the
same folders), then the cards that ncbench ships.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ncbench.cards import DatasetCard, ModelCard, ReportCard, read_yaml, to_yaml
from ncbench.errors import CardError
from ncbench.files import replacing_folder
from ncbench.loader_card import LoaderCard
from ncbench.protocol_card import ProtocolCard
from ncbench.recipe_card import RecipeCard, extended
from ncbench.settings import suggest

ENTRY_POINT_GROUP = "ncbench.catalogs"
HERE = "current directory"
_FOLDERS: Mapping[type[Any], str] = {
    DatasetCard: "datasets",
    ModelCard: "models",
    ProtocolCard: "evaluators",
    LoaderCard: "loaders",
    RecipeCard: "recipes",
    ReportCard: "reports",
}
_KINDS: Mapping[type[Any], str] = {
    DatasetCard: "data set",
    ModelCard: "model",
    ProtocolCard: "protocol",
    LoaderCard: "loader recipe",
    RecipeCard: "training recipe",
    ReportCard: "report",
}

_Override = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

CardT = TypeVar("CardT", DatasetCard, ModelCard, ProtocolCard, LoaderCard, RecipeCard, ReportCard)


@dataclass(frozen=True)
class Found:
    """A card file and the layer that it comes from."""

    path: Path
    layer: str


def shipped_root() -> Path:
    """Return the folder that holds the shipped card folders: in the wheel ``ncbench/_catalog``, else the checkout."""
    package = Path(__file__).parent
    catalog = package / "_catalog"
    return catalog if catalog.is_dir() else package.parent


def find(kind: type[CardT]) -> dict[str, Found]:
    """List the cards of one kind, the winning file for each name.

    Args:
        kind: The card's class.

    Returns:
        Name (file stem) -> file, sorted by name. No file is opened.

    Raises:
        CardError: Two installed packages offer the same name.
    """
    folder = _FOLDERS[kind]
    cards = {path.stem: Found(path, "ncbench") for path in _yaml_files(shipped_root() / folder)}
    for name, layer_root in _plugin_roots().items():
        for path in _yaml_files(layer_root / folder):
            if path.stem in cards:
                other = cards[path.stem]
                raise CardError(
                    f"{_KINDS[kind]} '{path.stem}' is offered twice: {other.path} ({other.layer}) and {path} ({name})"
                )
            cards[path.stem] = Found(path, name)
    here = Path.cwd()
    if here != shipped_root():
        cards.update({path.stem: Found(path, HERE) for path in _yaml_files(here / folder)})
    return dict(sorted(cards.items()))


def load_all(kind: type[CardT]) -> tuple[dict[str, CardT], list[str]]:
    """Read every card of one kind.

    Args:
        kind: The card's class.

    Returns:
        Name -> card, sorted by name; and what is wrong with the files of the current directory that are no such card
        (a folder ``models`` may well hold somebody else's YAML).

    Raises:
        CardError: A shipped or installed card breaks its schema.
    """
    cards: dict[str, CardT] = {}
    problems: list[str] = []
    for name, found in find(kind).items():
        try:
            cards[name] = read_card(kind, found.path)
        except CardError as error:
            if found.layer != HERE:
                raise
            problems.append(str(error))
    return cards, problems


def load(kind: type[CardT], name: str) -> CardT:
    """Read and check one card.

    Args:
        kind: The card's class.
        name: The card's name, or a path to a YAML file.

    Returns:
        The checked card.

    Raises:
        CardError: No such card, or it breaks the schema.
    """
    if name.endswith((".yaml", ".yml")):
        return read_card(kind, Path(name))
    cards = find(kind)
    if name not in cards:
        raise CardError(f"no {_KINDS[kind]} is called '{name}'. {suggest(name, cards)}")
    return read_card(kind, cards[name].path)


def read_card(kind: type[CardT], path: Path) -> CardT:
    """Read one card file, following ``extends: other`` (a card in the same folder whose keys this one overrides).

    A training recipe overrides single keys within blocks too; of other cards, a block replaces the whole block.

    Args:
        kind: The card's class.
        path: The YAML file.

    Returns:
        The checked card.

    Raises:
        CardError: The file, or one that it extends, breaks the schema; its name differs from the file's.
    """
    values = _resolve(path, (), extended if kind is RecipeCard else operator.or_)
    card = kind.parse(values, where=str(path))
    if card.name != path.stem:
        raise CardError(f"{path}: key 'name' is '{card.name}', but the file is called '{path.stem}'; make them equal")
    return card


def write_catalog(to: Path) -> int:
    """Write every card, defaults and ``extends`` filled in, as ``<to>/<folder>/<name>.yaml``.

    A pipeline that depends on these files reruns what a change of a card touches, through any chain of ``extends``.

    Args:
        to: The folder; replaced where an earlier call made it.

    Returns:
        How many cards were written.

    Raises:
        CardError: A card breaks its schema.
        StoreError: The folder holds something else, or cannot be written.
    """
    texts = {
        f"{folder}/{name}.yaml": to_yaml(card)
        for kind, folder in _FOLDERS.items()
        for name, card in load_all(kind)[0].items()
    }
    with replacing_folder(to, "cards") as partial:
        for name, text in texts.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return len(texts)


def _resolve(path: Path, seen: tuple[Path, ...], override: _Override) -> dict[str, Any]:
    if path in seen:
        raise CardError(f"{path}: 'extends' goes round in a circle: {' -> '.join(p.stem for p in (*seen, path))}")
    values = read_yaml(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    base_path = path.parent / f"{base}.yaml"
    if not isinstance(base, str) or base_path.parent != path.parent or not base_path.is_file():
        names = [other.stem for other in _yaml_files(path.parent)]
        raise CardError(
            f"{path}: key 'extends' names '{base}', which is not in {path.parent}. {suggest(str(base), names)}"
        )
    return override(_resolve(base_path, (*seen, path), override), values)


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml")) if folder.is_dir() else []


@cache
def _plugin_roots() -> dict[str, Path]:
    roots: dict[str, Path] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            roots[point.name] = Path(str(files(point.value)))
        except ModuleNotFoundError as error:
            raise CardError(
                f"entry point '{point.name}' of {ENTRY_POINT_GROUP} names '{point.value}': {error}"
            ) from error
    return roots
