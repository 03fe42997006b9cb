"""Arguments and default folders that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DatasetName = Annotated[str, typer.Argument(help="Name of a data set card, or a path to a YAML file.")]
ModelName = Annotated[str, typer.Argument(help="Name of a model card.")]
ProtocolName = Annotated[str, typer.Argument(help="Name of a protocol card.")]
Stores = Annotated[Path, typer.Option(help="Folder of prepared data sets.")]
Predictions = Annotated[Path, typer.Option(help="Folder of prediction stores.")]
Results = Annotated[Path, typer.Option(help="Folder of results.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Worker processes.")]

RAW, STORES, PREDICTIONS = Path("data/raw"), Path("data/stores"), Path("data/predictions")
RESULTS, REPORT = Path("data/results"), Path("reports/generated")
