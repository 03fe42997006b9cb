"""Blocks of a report card that say which published numbers belong to which protocols and models."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from ncbench.settings import Settings


class Significance(Settings):
    """Which differences are tested.

    Attributes:
        metrics: Each model is compared with the best one in each of these; choose them before you look.
        alpha: Percent. A difference is called significant where Holm's corrected p-value lies below it.
        permutations: Random swaps where there are more than 14 units.
        seed: Of the swaps.
    """

    metrics: list[str] = Field(default_factory=lambda: ["mean"])
    alpha: float = Field(default=5.0, gt=0, lt=50)
    permutations: int = Field(default=9999, ge=99, le=1_000_000)
    seed: int = 0


class PublishedNumbers(Settings):
    """Numbers that papers report, and what they may be compared with.

    Attributes:
        file: CSV in the folder ``reports``: source, table, method, dataset, split, metric, value, note.
        methods: A method's name there -> names of model cards.
        protocols: ``dataset/split`` there -> names of protocols that score the same frames in the same way.
        tolerances: Metric -> how far a result may be off, before the defaults: 0.1 degrees for mean, median and rmse,
            0.2 points for ``within_*``.
    """

    file: str = "published.csv"
    methods: dict[str, list[str]] = Field(default_factory=dict)
    protocols: dict[str, list[str]] = Field(default_factory=dict)
    tolerances: dict[str, PositiveFloat] = Field(default_factory=dict)


class PaperGroup(Settings):
    """The columns of one data set in a paper's table.

    Attributes:
        title: Their common head.
        split: ``dataset/split`` in the CSV of published numbers.
        protocol: Where this project's own rows come from; empty for nowhere.
        comparable: Whether that protocol scores the same frames in the same way; else its rows stand below without a
            difference.
        note: What a reader must know of these columns.
    """

    title: str
    split: str
    protocol: str = ""
    comparable: bool = True
    note: str = ""


class PaperRow(Settings):
    """One row of a paper's table.

    Attributes:
        method: As the CSV names it.
        table: In which of the source's tables its numbers stand; empty for this table.
        label: As this table prints it; empty for the method's name.
    """

    method: str
    table: str = ""
    label: str = ""


class PaperTable(Settings):
    """A table of a paper in its own layout, with this project's results below.

    Attributes:
        source: As in the CSV of published numbers.
        table: As there.
        metrics: Columns of each group.
        rank: Whether each group ends with the average rank over its metrics.
        decimals: How this project's numbers are printed; published ones keep their own.
        groups: Data sets, from left to right.
        rows: Methods, from top to bottom.
    """

    source: str
    table: str
    metrics: list[str] = Field(min_length=1)
    rank: bool = False
    decimals: int = Field(default=1, ge=0, le=4)
    groups: list[PaperGroup] = Field(min_length=1)
    rows: list[PaperRow] = Field(min_length=1)
