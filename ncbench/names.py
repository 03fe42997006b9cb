"""Kinds of names that cards of every sort use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

AxesName = Literal["opencv", "opengl", "dsine", "ldf"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
SemVer = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
