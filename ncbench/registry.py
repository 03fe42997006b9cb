"""Lazy lookup: a card names its code as ``package.module:attribute``, and only running it imports it."""

from __future__ import annotations

import importlib
from typing import Any

from ncbench.errors import CardError
from ncbench.settings import suggest


def load_attribute(spec: str) -> Any:  # noqa: ANN401 - whatever the card names
    """Import what a card names.

    Args:
        spec: ``package.module:attribute``.

    Returns:
        The attribute.

    Raises:
        CardError: The text has another form, the module cannot be imported, or it lacks the attribute.

    Examples:
        >>> load_attribute("math:tau") > 6
        True
    """
    module_name, separator, attribute = spec.partition(":")
    if not separator or not module_name or not attribute.isidentifier():
        raise CardError(f"'{spec}' is not of the form 'package.module:attribute'")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module's own code raises while it is imported
        raise CardError(
            f"'{spec}': module {module_name} cannot be imported ({type(error).__name__}: {error}). "
            "Install what provides it, or mend it."
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
        raise CardError(f"'{spec}': {module_name} has no '{attribute}'. {suggest(attribute, public)}") from None
