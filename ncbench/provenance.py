"""Under what circumstances a number was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("ncbench", "numpy", "scipy", "numba", "pandas", "pyarrow", "datasets", "torch", "diffusers", "transformers")


def package_versions() -> dict[str, str | None]:
    """Return the installed version of every package that can change a number; None where one is absent."""
    return {name: _version(name) for name in PACKAGES}


def code_revision() -> dict[str, Any]:
    """Return the commit of the checkout that runs and whether it has uncommitted changes; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    status = _git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return {"commit": None, "dirty": None}
    heads = [line.split()[-1] for line in status.splitlines() if line.startswith("# branch.oid ")]
    commit = heads[0] if heads and heads[0] != "(initial)" else None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in status.splitlines())}


def machine() -> dict[str, Any]:
    """Return what ran: operating system, processor, Python. No host or user name."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }


def peak_memory_bytes() -> int | None:
    """Return the largest resident size that this process has had; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
