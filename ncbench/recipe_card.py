"""``recipes/<name>.yaml``: how a model is trained, from the weights that it starts from to the steps that it takes.

The data side is a card of its own, ``loaders/<name>.yaml``; the losses are those of a stage, a class that the recipe
names. A recipe that ``extends`` another changes single keys of its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, model_validator

from ncbench.errors import CardError
from ncbench.names import Name, SemVer
from ncbench.settings import Settings, suggest
from ncbench.sources import Attribute, Weights

Precision = Literal["fp32", "bf16", "fp16"]
Share = Annotated[float, Field(ge=0, lt=1)]
RecipeOrWeights = Weights | Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class Optimizer(Settings):
    """AdamW with a learning rate that rises linearly and then decays exponentially.

    Attributes:
        lr: Highest learning rate.
        betas: Decay of the two moments.
        weight_decay: Decoupled, on all parameters that learn.
        eps: Added to the root of the second moment.
        warmup_steps: Steps until ``lr`` is reached.
        final_ratio: Share of ``lr`` that is left after ``decay_steps``; 1 keeps it constant.
        decay_steps: Step at which the decay ends; null for the recipe's ``steps``.
        clip: Largest norm of the gradient; a larger one is scaled down. Null leaves it.
    """

    lr: float = Field(gt=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    eps: float = Field(default=1e-8, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    final_ratio: float = Field(default=0.01, gt=0, le=1)
    decay_steps: int | None = Field(default=None, ge=1)
    clip: float | None = Field(default=1.0, gt=0)


class Checkpoints(Settings):
    """When the state of a run is written.

    Attributes:
        every: Steps between two checkpoints; the last step has one in any case.
        keep: How many of the newest stay.
    """

    every: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1)


class Validation(Settings):
    """What is watched while a model learns; no benchmark, which ``ncbench evaluate`` is for.

    Attributes:
        dataset: Name of a store that is not trained on.
        sequences: Only these, which may then be of a store whose other sequences are trained on.
        every: Steps between two validations; the last step has one in any case.
        frames: Longest clip.
        clips: At most so many, evenly spread over the store.
        pictures: Of so many clips, pictures are drawn.
    """

    dataset: Name
    sequences: list[str] | None = None
    every: int = Field(default=1000, ge=1)
    frames: int = Field(default=4, ge=1)
    clips: int = Field(default=16, ge=1)
    pictures: int = Field(default=4, ge=0)


class RecipeCard(Settings):
    """``recipes/<name>.yaml``: stage, data, optimizer, and how the run is kept.

    Attributes:
        stage: Subclass of `ncbench.training.stage.Stage`, as ``module:Class``.
        settings: For the stage.
        loader: Name of a loader's card.
        loader_settings: Changes to that card.
        init: Weights to start from: pinned ones, or the name of the recipe whose result this one goes on from; null
            for a stage whose settings describe networks from scratch.
        steps: Updates of the parameters.
        optimizer: As above.
        global_batch: Clips an update, of all processes together; missing ones are made up by accumulation.
        ema: Decay of the running mean of the parameters, which is then what is validated and kept; null for none.
        precision: Number format of the computation; parameters stay fp32.
        seed: Of everything that is drawn, but for the loader's own seed.
        checkpoint: As above.
        log_every: Steps between two lines of ``log.jsonl``.
        validation: As above, or null.
        profiles: Name -> changes to this card, for ``--profile``.
    """

    name: Name
    version: SemVer
    title: str
    summary: str
    stage: Attribute
    settings: dict[str, Any] = Field(default_factory=dict)
    loader: Name
    loader_settings: dict[str, Any] = Field(default_factory=dict)
    init: RecipeOrWeights | None = None
    steps: int = Field(ge=1)
    optimizer: Optimizer
    global_batch: int = Field(default=8, ge=1)
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Precision = "fp32"
    seed: int = Field(default=0, ge=0)
    checkpoint: Checkpoints = Checkpoints()
    log_every: int = Field(default=1, ge=1)
    validation: Validation | None = None
    profiles: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> RecipeCard:
        warmup, decay_end = self.optimizer.warmup_steps, self.optimizer.decay_steps or self.steps
        if self.optimizer.final_ratio < 1 and warmup >= decay_end:
            raise ValueError(
                f"optimizer.warmup_steps must end before the decay does, got {warmup} of {decay_end} steps"
            )
        return self

    def shaping(self) -> dict[str, Any]:
        """Return the part of the card that the trained parameters depend on, but for the number of steps."""
        kept = {"name", "version", "title", "summary", "loader", "profiles"}
        kept |= {"steps", "checkpoint", "log_every", "validation"}
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in kept}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change single keys of nested mappings.

    Args:
        base: The values.
        changes: What replaces them; a mapping changes the mapping of the same key, anything else takes its place.

    Returns:
        A new mapping.

    Examples:
        >>> merged({"a": {"b": 1, "c": [2]}, "d": 3}, {"a": {"c": [4]}})
        {'a': {'b': 1, 'c': [4]}, 'd': 3}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def extended(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Combine a recipe's values with those of one that it extends.

    Args:
        base: Values of the other recipe.
        changes: Values of this one.

    Returns:
        As ``merged``; but settings are those of a stage, so that a recipe of another stage takes none over.
    """
    same = changes.get("stage", base.get("stage")) == base.get("stage")
    return merged(base if same else {key: value for key, value in base.items() if key != "settings"}, changes)


def changed(card: RecipeCard, profile: str | None = None, assignments: Sequence[str] = ()) -> RecipeCard:
    """Apply a profile of the card, then what the command line sets.

    Args:
        card: The recipe.
        profile: Name of one of its profiles.
        assignments: Each ``key=value``, with dots between nested keys; the value is YAML.

    Returns:
        The recipe to run, without profiles.

    Raises:
        CardError: The profile or a key is unknown, or a value does not fit.

    Examples:
        ``changed(card, "small", ["optimizer.lr=1e-5", "loader_settings.resize.short_edge=96"])``
    """
    values = card.model_dump(mode="json")
    profiles = values.pop("profiles")
    where = f"recipe '{card.name}'"
    if profile is not None:
        if profile not in profiles:
            raise CardError(f"{where}: no profile '{profile}'. {suggest(profile, profiles)}")
        values = merged(values, profiles[profile])
        where += f", profile '{profile}'"
    for text in assignments:
        values = merged(values, _assignment(text))
        where += f", --set {text}"
    return RecipeCard.parse(values, where)


def _assignment(text: str) -> dict[str, Any]:
    key, separator, written = text.partition("=")
    if not separator or not all(key.split(".")):
        raise CardError(f"--set takes key=value, such as optimizer.lr=1e-5; got '{text}'")
    try:
        value: Any = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise CardError(f"--set {text}: the value is not YAML ({' '.join(str(error).split())})") from error
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)
