"""Arguments and default folders that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ncbench.names import AxesName

DatasetName = Annotated[str, typer.Argument(help="Name of a data set card, or a path to a YAML file.")]
ModelName = Annotated[str, typer.Argument(help="Name of a model card.")]
ProtocolName = Annotated[str, typer.Argument(help="Name of a protocol card.")]
ProtocolOption = Annotated[
    str, typer.Option("--protocol", "-p", help="Name of a protocol card, or a path to a YAML file.")
]
PredictionsName = Annotated[
    str, typer.Argument(metavar="PREDICTIONS", help="A model's name, a prediction store, or a plain folder of files.")
]
Axes = Annotated[
    AxesName | None, typer.Option(help="Axes of the normals in a plain folder (docs/conventions.md); required there.")
]
Pattern = Annotated[
    str | None,
    typer.Option(
        help="File of each frame in a plain folder, such as '{sequence}/{frame:06d}.png'. Usual names are found."
    ),
]
Key = Annotated[str | None, typer.Option(help="Array in NPZ files that hold several, or layer in EXR files.")]
FrameOffset = Annotated[int, typer.Option(help="Added to the data set's frame numbers to get those of the files.")]
Stores = Annotated[Path, typer.Option(help="Folder of prepared data sets.")]
Predictions = Annotated[Path, typer.Option(help="Folder of prediction stores.")]
Results = Annotated[Path, typer.Option(help="Folder of results.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes that work, this one included.")]

RAW, STORES, PREDICTIONS = Path("data/raw"), Path("data/stores"), Path("data/predictions")
RESULTS, REPORT, FLOW = Path("data/results"), Path("reports/generated"), Path("data/flow")
