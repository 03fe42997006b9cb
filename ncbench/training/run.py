"""From a recipe's name to a trained model: everything is opened and checked, then trained, then written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from ncbench import catalog
from ncbench.cards import ModelCard, to_yaml
from ncbench.errors import CardError, ModelError, NcbenchError
from ncbench.loader_card import LoaderCard
from ncbench.loaders.clips import NormalClips
from ncbench.loaders.recipes import open_clips
from ncbench.models.weights import find_weights
from ncbench.recipe_card import RecipeCard, changed, merged
from ncbench.registry import load_attribute
from ncbench.training.checkpoint import list_checkpoints, read_checkpoint
from ncbench.training.folder import CHECKPOINTS, MODEL, check_same, claimed, clear, files_digest, weights_digest
from ncbench.training.logs import read_log
from ncbench.training.result import finished_steps, write_result
from ncbench.training.stage import Stage
from ncbench.training.trainer import Trainer
from ncbench.training.validation import Validator

Device = Literal["cpu", "cuda"]
_SHARDED = (DistributedType.FSDP,)
_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, *_SHARDED)


@dataclass(frozen=True)
class Options:
    """How a recipe is run here.

    Attributes:
        to: Folder of the run; one that holds an unfinished run is gone on with.
        init: Folder of weights, or of a run, to start from; None for what the recipe says.
        stores: Folder or URL of the prepared data sets.
        profile: One of the recipe's.
        assignments: Changes to the recipe, ``key=value``.
        workers: Loading threads of each process.
        device: None for the best there is.
        restart: Whether a run in ``to`` that was begun with something else is removed, and this one begins anew.
        tell: Is told in a sentence what happens.
    """

    to: Path
    init: Path | None = None
    stores: str | Path = Path("data/stores")
    profile: str | None = None
    assignments: Sequence[str] = ()
    workers: int = 2
    device: Device | None = None
    restart: bool = False
    tell: Callable[[str], None] = field(default=lambda _: None)


def train(recipe: str, options: Options) -> Path:
    """Train a recipe, or go on with it, or say that it is done.

    Every process of several that train together calls this.

    Args:
        recipe: Name of a card, or a path to a YAML file.
        options: How.

    Returns:
        The folder of the model.

    Raises:
        CardError: The recipe, a change to it, or its mixture is wrong; or the folder's run was begun with another.
        ModelError: Weights are missing or wrong, or a loss is not finite.
        StoreError: Data are damaged, the disk is full, or the folder is somebody else's.
    """
    card = changed(catalog.load(RecipeCard, recipe), options.profile, options.assignments)
    loader = loader_of(card)
    stage = make_stage(card)
    accelerator = _accelerator(card, options.device)
    if not accelerator.is_main_process:
        return _train(card, loader, stage, accelerator, options)
    with claimed(options.to):
        return _train(card, loader, stage, accelerator, options)


def _train(card: RecipeCard, loader: LoaderCard, stage: Stage, accelerator: Accelerator, options: Options) -> Path:
    model, main = options.to / MODEL, accelerator.is_main_process
    clips = open_clips(loader, options.stores)
    validator = Validator(card.validation, loader, options.stores) if card.validation else None
    name, init = starting_point(card, options.init, options.to)
    identity = identity_of(card, clips, weights_digest(init), files_digest(stage.files())) if main else {}
    if main:
        check_same(options.to, identity, restart=options.restart)
        if options.restart and finished_steps(options.to) > card.steps:  # the recipe asks for fewer steps than before
            clear(options.to)
            check_same(options.to, identity)
    accelerator.wait_for_everyone()
    done = finished_steps(options.to)
    accelerator.wait_for_everyone()
    if done >= card.steps:
        if main:
            options.tell(f"{model}: already trained for {done} steps; nothing to do. More: --steps N")
        return model
    stage.load(init, card.seed)
    trainer = Trainer(card, stage, clips, accelerator, options.to, workers=options.workers, validator=validator)
    if main:
        options.tell(_beginning(card, name, trainer, accelerator))
    trainer.fit()
    if main:
        device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU"
        facts = {
            "steps": trainer.step,
            "seconds": round(trainer.seconds, 3),
            "seed": card.seed,
            "ema": card.ema,
            "world": accelerator.num_processes,
            "device": device,
            "data": identity["data"],
            "init": {"name": name, "sha256": identity["init"]},
            "files": identity["files"],
            "last": (read_log(options.to) or [{}])[-1],
        }
        with trainer.finished_weights():
            kept = _whole(card, init, options.to) if accelerator.distributed_type in _SHARDED else stage
            write_result(options.to, kept, card, to_yaml(loader), facts)
        options.tell(f"{model}: trained for {trainer.step} steps")
    accelerator.wait_for_everyone()
    return model


def loader_of(card: RecipeCard) -> LoaderCard:
    """Return the loader's card with the recipe's changes.

    Raises:
        CardError: There is no such card, or a change does not fit.
    """
    values = catalog.load(LoaderCard, card.loader).model_dump(mode="json")
    where = f"recipe '{card.name}', loader '{card.loader}' with loader_settings"
    return LoaderCard.parse(merged(values, card.loader_settings), where)


def make_stage(card: RecipeCard) -> Stage:
    """Make the stage that a recipe names, without its networks.

    Raises:
        CardError: There is no such class, or its settings are wrong.
    """
    kind = load_attribute(card.stage)
    if not (isinstance(kind, type) and issubclass(kind, Stage)):
        raise CardError(f"recipe '{card.name}': '{card.stage}' is not a subclass of ncbench.training.stage.Stage")
    try:
        return kind(card.settings)
    except NcbenchError as error:
        raise type(error)(f"recipe '{card.name}': {error}") from error


def starting_point(card: RecipeCard, given: Path | None, to: Path) -> tuple[str, Path | None]:
    """Find the weights that a run starts from.

    Args:
        card: The recipe.
        given: The user's choice: a folder of weights, or of a finished run.
        to: Folder of this run; what another recipe made is looked for beside it.

    Returns:
        What to call them, and their folder; None for networks from scratch.

    Raises:
        ModelError: They are not there.
    """
    if given is not None:
        folder = given / MODEL if (given / MODEL).is_dir() else given
        if not folder.is_dir():
            raise ModelError(f"{given}: no such folder of weights; --init takes one, or the folder of a finished run.")
        return given.name, folder
    if card.init is None:
        return "nothing: networks from scratch", None
    if isinstance(card.init, str):
        folder = to.absolute().parent / card.init / MODEL
        if not folder.is_dir():
            raise ModelError(
                f"recipe '{card.name}' goes on from what '{card.init}' made, and {folder} is not there. Run `ncbench "
                f"train {card.init} --to {to.parent / card.init}` first, or pass a folder of weights with --init."
            )
        return card.init, folder
    if card.init.host == "elsewhere":
        raise ModelError(
            f"recipe '{card.name}': get {', '.join(card.init.files)} from {card.init.address} and pass the folder with "
            "--init."
        )
    found = find_weights(_as_model(card))
    return f"{card.init.repository}@{card.init.revision}", None if found is None else found.folder


def identity_of(
    card: RecipeCard, clips: NormalClips, weights: Mapping[str, str], files: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a run's parameters depend on, but for the number of steps; plain values.

    Args:
        card: The recipe.
        clips: What is trained on.
        weights: Digests of the weights that the run starts from.
        files: Digests of the stage's other files.
    """
    return {
        "recipe": card.shaping(),
        "loader": clips.card.shaping(),
        "data": {member.name: member.store.manifest.digest for member in clips.mixture.members},
        "init": dict(weights),
        "files": dict(files),
    }


def _as_model(card: RecipeCard) -> ModelCard:
    prose = {"name": card.name, "version": card.version, "title": card.title, "summary": card.summary}
    weights = card.init.model_dump(mode="json") if card.init and not isinstance(card.init, str) else None
    values = {**prose, "kind": "video", "adapter": card.stage, "axes": "opencv", "weights": weights}
    return ModelCard.parse(values, where=f"recipe '{card.name}'")


def _accelerator(card: RecipeCard, device: Device | None) -> Accelerator:
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("--device cuda: torch finds no GPU here. Install torch for CUDA, or use --device cpu.")
    if PartialState._shared_state and PartialState().num_processes == 1:  # noqa: SLF001 - see next line
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - nothing public lets a second run differ
    mixed = "no" if card.precision == "fp32" else card.precision
    accelerator = Accelerator(mixed_precision=mixed, cpu=device == "cpu")
    kind = accelerator.distributed_type
    if kind not in _SUPPORTED:
        raise ModelError(
            f"accelerate is set up for {kind.value}, whose checkpoints are pickles of its own, which ncbench neither "
            "writes nor opens. Choose several GPUs or FSDP: accelerate config"
        )
    if kind in _SHARDED and (card.ema or card.validation):
        raise CardError("with FSDP no process holds a whole network: set ema=null and validation=null (--set).")
    return accelerator


def _whole(card: RecipeCard, init: Path | None, folder: Path) -> Stage:
    """Make the stage anew from the last checkpoint, since no process of a sharded run holds all of it."""
    stage = make_stage(card)
    stage.load(init, card.seed)
    newest = list_checkpoints(folder / CHECKPOINTS)[-1]
    stage.load_state_dict(dict(read_checkpoint(newest).tensors["parameters"]), strict=False)
    return stage


def _beginning(card: RecipeCard, init: str, trainer: Trainer, accelerator: Accelerator) -> str:
    count = sum(value.numel() for value in trainer.stage.trainable().values())
    begun = f"goes on at step {trainer.step}" if trainer.step else f"starts from {init}"
    return (
        f"{card.name} {begun}: {card.steps} steps, {count:,} parameters learn, {card.global_batch} clips a step on "
        f"{accelerator.num_processes} x {accelerator.device.type}, {card.precision}"
    )
