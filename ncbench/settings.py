"""Typed settings with errors that name the file, the key, what was expected and the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ncbench.errors import CardError


def suggest(name: str, valid: Iterable[str]) -> str:
    """Write the hint that follows an unknown name.

    Args:
        name: What the user wrote.
        valid: What would have been accepted.

    Returns:
        ``Did you mean 'x'?`` where something is near, then all valid names.

    Examples:
        >>> suggest("openg", ["opencv", "opengl"])
        "Did you mean 'opengl'? Valid: opencv, opengl."
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listing = f"Valid: {', '.join(names)}." if names else "None is known here."
    return f"Did you mean '{near[0]}'? {listing}" if near else listing


class Settings(BaseModel):
    """Base of every card and settings block: frozen, no unknown keys, errors as ``CardError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Check plain values against this class.

        Args:
            values: What the YAML file or the caller holds.
            where: File and section, for the message.

        Returns:
            The checked settings.

        Raises:
            CardError: Naming every bad key at once.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            lines = [_explain(cls, item) for item in error.errors(include_url=False)]
            raise CardError(f"{where}: " + "; ".join(lines)) from error


def _explain(model: type[BaseModel], item: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    key = ".".join(str(part) for part in item["loc"]) or "(whole)"
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}'. {suggest(str(item['loc'][-1]), _fields_at(model, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"key '{key}' is required but missing"
    found = repr(item["input"])
    shown = found if len(found) <= 80 else found[:77] + "..."
    if item["type"] == "literal_error":
        valid = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return f"key '{key}': unknown value {shown}. {suggest(str(item['input']), valid)}"
    return f"key '{key}': {item['msg']} (found {shown})"


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at a nested location, so that a hint suggests siblings of the misspelt key."""
    current: Any = model
    for part in loc:
        if isinstance(part, int) or not _is_model(current):
            continue
        field = current.model_fields.get(part)
        if field is None:  # a union's tag: stay at the level reached
            continue
        current = next((kind for kind in _parts(field.annotation) if _is_model(kind)), current)
    return list(current.model_fields) if _is_model(current) else []


def _is_model(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _parts(annotation: Any) -> Iterable[Any]:  # noqa: ANN401 - any annotation
    yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _parts(argument)
