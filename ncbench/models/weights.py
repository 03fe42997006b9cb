"""Files of weights: where they lie, whether they are the pinned ones, and how their tensors are read.

Only safetensors, or pickles that torch reads with ``weights_only=True``: weights never run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncbench.cards import ModelCard
from ncbench.errors import ModelError
from ncbench.files import file_sha256
from ncbench.settings import suggest
from ncbench.sources import Weights

if TYPE_CHECKING:
    import torch

_SHOWN = 3


@dataclass(frozen=True)
class LocalWeights:
    """A card's files of weights, here and checked.

    Attributes:
        folder: Holds each file under the name that the card gives it.
        revision: The commit that they come from, where the Hub said so; else what the card states.
        sha256: File -> hex digest.
    """

    folder: Path
    revision: str
    sha256: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        """Say what was used, for provenance; without the machine's paths."""
        return {"revision": self.revision, "sha256": dict(self.sha256)}


def find_weights(card: ModelCard, folder: Path | None = None) -> LocalWeights | None:
    """Bring a model's weights here and check them.

    Args:
        card: The model's card.
        folder: The user's own copy, for work offline: the folder that holds the files, or one that holds it as
            ``<model>/`` or ``<owner>/<repository>/``. None takes the Hub's cache, and downloads what it lacks; or the
            card's local folder.

    Returns:
        The weights; None where the card names none.

    Raises:
        ModelError: A file is missing, cannot be downloaded, or has another sha256 than the card states. The message
            says which and where to get it.
    """
    weights = card.weights
    if weights is None:
        return None
    folder = _given_or_local(weights, folder)
    if folder is not None:
        root, revision = _own_copy(card, weights, folder), weights.revision
    elif weights.host == "huggingface":
        root = _from_hub(card, weights)
        revision = root.name
    else:
        raise ModelError(
            f"model '{card.name}': its weights are not on the Hugging Face Hub. Get {_listed(weights)} from "
            f"{weights.address} and pass the folder with --weights."
        )
    return LocalWeights(root, revision, {name: _checked(card, weights, root, name) for name in weights.files})


def missing_weights(card: ModelCard, folder: Path | None = None) -> list[str]:
    """List the files that are not here, without a look at the network or into the files.

    Args:
        card: The model's card.
        folder: As in ``find_weights``; None looks into the Hub's cache or the card's local folder.

    Returns:
        Names of files; empty where all are here or the card names none.
    """
    weights = card.weights
    if weights is None:
        return []
    folder = _given_or_local(weights, folder)
    if folder is not None:
        roots = _candidates(card, weights, folder)
        return min(([name for name in weights.files if not (root / name).is_file()] for root in roots), key=len)
    if weights.host != "huggingface":
        return list(weights.files)
    from huggingface_hub import try_to_load_from_cache

    found = {
        name: try_to_load_from_cache(weights.repository, name, revision=weights.revision) for name in weights.files
    }
    return [name for name, path in found.items() if not isinstance(path, str)]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights onto the CPU.

    Args:
        path: ``.safetensors``, or a pickle of torch (``.bin``, ``.ckpt``, ``.pt``, ``.pth``).

    Returns:
        Name -> tensor. A pickle that wraps them as ``{"state_dict": ...}`` or ``{"model": ...}`` is unwrapped.

    Raises:
        ModelError: The file is missing, damaged, or holds anything but tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as weights ({error}). Get the file again.") from error
    except Exception as error:  # torch raises pickle's errors, and whatever a hostile file provokes
        raise ModelError(
            f"{path}: holds more than tensors, and is not opened so that it cannot run code ({type(error).__name__}). "
            "Use a safetensors file, or one saved from a plain state_dict."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ModelError(f"{path}: expected a mapping of names to tensors, found {type(stored).__name__} of others")
    return stored


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str | Path) -> None:
    """Put tensors into a network; every one must have its place, and every place its tensor.

    Args:
        module: The network.
        tensors: Name -> tensor.
        where: Where they come from, for the message.

    Raises:
        ModelError: A tensor is missing, unknown, or of another shape.
    """
    wanted = module.state_dict()
    require_complete(
        {
            "missing_keys": [name for name in wanted if name not in tensors],
            "unexpected_keys": [name for name in tensors if name not in wanted],
            "mismatched_keys": [
                (name, tuple(tensors[name].shape), tuple(wanted[name].shape))
                for name in wanted
                if name in tensors and tensors[name].shape != wanted[name].shape
            ],
        },
        where,
    )
    module.load_state_dict(dict(tensors))


def require_complete(info: Mapping[str, Any], where: str | Path) -> None:
    """Refuse what diffusers and transformers only warn of: tensors that are missing, unknown or of another shape.

    Args:
        info: What ``from_pretrained(..., output_loading_info=True)`` returns beside the model: ``missing_keys``,
            ``unexpected_keys``, and ``mismatched_keys`` of (name, stored shape, expected shape).
        where: The folder or file, for the message.

    Raises:
        ModelError: Any of them is not empty.
    """
    missing, unexpected = sorted(info.get("missing_keys", ())), sorted(info.get("unexpected_keys", ()))
    mismatched = list(info.get("mismatched_keys", ()))
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors are missing: {_some(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} are unknown: {_some(unexpected)}")
    if mismatched:
        shapes = [f"{item[0]} of {tuple(item[1])} for {tuple(item[2])}" for item in mismatched]
        problems.append(f"{len(shapes)} have another shape: {_some(shapes)}")
    if problems:
        hint = f" Was a tensor renamed? {suggest(unexpected[0], missing)}" if missing and unexpected else ""
        raise ModelError(
            f"{where}: these weights do not fit the model; {'; '.join(problems)}.{hint} Get the files of the revision "
            "that the card names."
        )


def _given_or_local(weights: Weights, folder: Path | None) -> Path | None:
    return Path(weights.repository) if folder is None and weights.host == "local" else folder


def _own_copy(card: ModelCard, weights: Weights, folder: Path) -> Path:
    candidates = _candidates(card, weights, folder)
    lacking = {root: [name for name in weights.files if not (root / name).is_file()] for root in candidates}
    root = min(candidates, key=lambda candidate: len(lacking[candidate]))
    if lacking[root]:
        raise ModelError(
            f"{root}: expected the weights of model '{card.name}', and {_some(lacking[root])} "
            f"{'is' if len(lacking[root]) == 1 else 'are'} missing. Get them from {weights.address}, revision "
            f"{weights.revision}."
        )
    return root


def _candidates(card: ModelCard, weights: Weights, folder: Path) -> list[Path]:
    return [folder, folder / card.name, folder / weights.repository]


def _from_hub(card: ModelCard, weights: Weights) -> Path:
    """Download the named files alone; those of a commit that are here already need no network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    roots = set()
    for name in weights.files:
        try:
            path = Path(hf_hub_download(weights.repository, name, revision=weights.revision))
        # no file, no repository, no permission and no connection are children of these two; so is a full disk
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"model '{card.name}': {name} of {weights.repository} at revision {weights.revision} cannot be "
                f"downloaded ({type(error).__name__}: {reason}). Get {_listed(weights)} from {weights.address} and "
                "pass the folder with --weights."
            ) from error
        roots.add(path.parents[len(Path(name).parts) - 1])
    if len(roots) > 1:
        raise ModelError(
            f"model '{card.name}': revision {weights.revision} of {weights.repository} moved during the download. Run "
            "the command again, or pin a commit's full hash."
        )
    return roots.pop()


def _checked(card: ModelCard, weights: Weights, root: Path, name: str) -> str:
    path = root / name
    found, expected = file_sha256(path), weights.files[name]
    if expected not in (None, found):
        raise ModelError(
            f"{path}: model '{card.name}' expects sha256 {expected}, found {found}: the file is damaged or of another "
            f"revision than {weights.revision}. Delete it and get it again from {weights.address}."
        )
    return found


def _listed(weights: Weights) -> str:
    return _some(list(weights.files))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
