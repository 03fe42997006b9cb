"""Errors a user can act on.

Every message says what was expected, what was found, where, and what to do next. The command line prints the message
alone (no traceback unless ``--debug``) and exits with the code of the class.
"""

from __future__ import annotations

from pathlib import Path


class NcbenchError(Exception):
    """Base of every error that ncbench raises on purpose.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code = 1


class CardError(NcbenchError):
    """A card (YAML) is missing, unreadable, or holds an unknown key or a bad value."""

    exit_code = 2


class SourceError(NcbenchError):
    """A file of a source data set is missing, truncated, corrupt or contradicts its neighbours."""

    exit_code = 3

    @classmethod
    def at(cls, path: str | Path, problem: str, remedy: str) -> SourceError:
        """Build the error for one file.

        Args:
            path: The offending file.
            problem: What was expected and what was found.
            remedy: What the user can do.

        Returns:
            The error, to be raised by the caller.
        """
        return cls(f"{path}: {problem}. {remedy}")


class StoreError(NcbenchError):
    """A normalized store is incomplete, corrupt, or of a schema that this version does not read."""

    exit_code = 4


class ModelError(NcbenchError):
    """A model cannot be loaded, needs something the data lacks, or broke its own contract."""

    exit_code = 5


class ScoreError(NcbenchError):
    """Predictions and truth do not belong together, or a result breaks an invariant."""

    exit_code = 6
