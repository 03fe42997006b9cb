"""What this machine can run, what is missing and how to get it."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.store import is_store

_LOW_DISK = 5 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        check: What was looked at.
        state: What was found.
        ok: Whether it is fine.
        remedy: What to do where it is not.
        optional: Whether ncbench works without it.
    """

    check: str
    state: str
    ok: bool
    remedy: str = ""
    optional: bool = False


def diagnose(stores: Path) -> list[Finding]:
    """Look at Python, packages, processor, GPU, memory, disk, extras and data sets.

    Args:
        stores: Folder of prepared data sets.

    Returns:
        Findings in reading order.
    """
    return [_python(), *_packages(), _processor(), _gpu(), _memory(), _disk(stores), *_extras(), *_datasets(stores)]


def _python() -> Finding:
    state = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    return Finding(
        "Python", state, sys.version_info >= (3, 11), "" if sys.version_info >= (3, 11) else "Use Python 3.11 or newer."
    )


def _packages() -> Iterator[Finding]:
    for requirement in _requirements():
        if requirement.marker is not None:
            continue
        found = _version(requirement.name)
        ok = found is not None and requirement.specifier.contains(found, prereleases=True)
        remedy = "" if ok else f"pip install '{requirement}'"
        yield Finding(requirement.name, found or "missing", ok, remedy)
    # a PyPI torchvision beside a CPU torch breaks every import of transformers and diffusers
    if importlib.util.find_spec("torchvision") is not None and not _torchvision_works():
        yield Finding(
            "torchvision", "does not fit torch", False, "pip uninstall torchvision, or install the matching build"
        )


def _torchvision_works() -> bool:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        return False
    return True


def _processor() -> Finding:
    return Finding("processor", f"{psutil.cpu_count(logical=True)} logical cores", True)


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("GPU", f"torch cannot be imported ({error})", False, "pip install torch")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("GPU", f"{names} (CUDA {torch.version.cuda})", True, optional=True)
    return Finding("GPU", "none", False, "Learned models run small on the CPU; controls need none.", optional=True)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    ok = free > 2 * 2**30
    return Finding(
        "memory", f"{free / 2**30:.1f} GiB free", ok, "" if ok else "Close programs: 2 GiB are needed.", optional=True
    )


def _disk(stores: Path) -> Finding:
    folder = next(path for path in (stores.absolute(), *stores.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    ok = free > _LOW_DISK
    return Finding(
        "disk",
        f"{free / 2**30:.1f} GiB free at {folder}",
        ok,
        "" if ok else "Free space, or pass --stores.",
        optional=True,
    )


def _extras() -> Iterator[Finding]:
    grouped: dict[str, list[Requirement]] = {}
    for requirement in _requirements():
        if requirement.marker is None:
            continue
        for extra in ("dev", "ray"):
            if requirement.marker.evaluate({"extra": extra}) and not requirement.marker.evaluate({"extra": ""}):
                grouped.setdefault(extra, []).append(requirement)
    for extra, members in sorted(grouped.items()):
        missing = [item.name for item in members if _version(item.name) is None]
        state = f"missing: {', '.join(missing)}" if missing else "installed"
        remedy = f"pip install 'ncbench[{extra}]'" if missing else ""
        yield Finding(f"extra {extra}", state, not missing, remedy, optional=True)


def _datasets(stores: Path) -> Iterator[Finding]:
    for name, card in catalog.load_all(DatasetCard)[0].items():
        here = is_store(stores / name)
        how = f"ncbench fetch {name} && ncbench prepare {name}"
        if card.source.kind == "manual":
            how = f"by hand: ncbench datasets show {name}"
        yield Finding(f"data set {name}", "prepared" if here else "not here", here, "" if here else how, optional=True)


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in requires("ncbench") or []]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
