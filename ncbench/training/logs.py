"""What a run tells while it goes on: a line of JSON a step, TensorBoard, and a bar for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from ncbench.files import write_bytes, writing

LOG = "log.jsonl"
BOARD = "tensorboard"


class Logs:
    """The log files of a run.

    A run that resumes at step n first forgets what an interrupted one wrote after n, so that each step is there once.

    Args:
        folder: The run's folder.
        resumed_at: Step of the checkpoint that the run goes on from; 0 at its beginning.

    Raises:
        StoreError: The folder cannot be written.
    """

    def __init__(self, folder: Path, resumed_at: int) -> None:
        self._path = folder / LOG
        kept = [line for line in read_log(folder) if line["step"] <= resumed_at]
        write_bytes(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        with writing(folder / BOARD):
            self._board: Any = SummaryWriter(str(folder / BOARD), purge_step=resumed_at + 1)
        self._stream = self._path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float], picture: NDArray[np.uint8] | None = None) -> None:
        """Write what a step gave.

        Args:
            step: Updates done.
            values: Name -> number.
            picture: (H, W, 3), for TensorBoard.

        Raises:
            StoreError: The disk is full.
        """
        with writing(self._path):
            self._stream.write(json.dumps({"step": step, **values}) + "\n")
            self._stream.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            if picture is not None:
                self._board.add_image("validation", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of ``log.jsonl``.

    Args:
        folder: The run's folder.

    Returns:
        One mapping a step, in order; a last line that a killed run wrote by half is left out.
    """
    path = folder / LOG
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last line break is not complete
    return [json.loads(line) for line in lines]


@contextmanager
def training_bar(title: str, steps: int, shown: bool) -> Iterator[Any]:
    """Show a bar with loss, learning rate, speed and memory; nothing where the error stream is no terminal.

    Args:
        title: The recipe's name.
        steps: Updates in all.
        shown: False for all processes but the first.

    Yields:
        A function of (updates done, numbers of the last one).
    """
    console = Console(stderr=True)
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TimeRemainingColumn(), TextColumn("{task.fields[numbers]}")),
    )
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True) as bars:
        task = bars.add_task(title, total=steps, numbers="")

        def report(done: int, values: Mapping[str, float]) -> None:
            bars.update(task, completed=done, numbers=_numbers(values))

        yield report


def _numbers(values: Mapping[str, float]) -> str:
    if not values:
        return ""
    text = f"loss {values['loss']:.4g}  lr {values['lr']:.2e}  {values['samples_per_second']:.3g} clips/s"
    memory = values.get("gpu_memory_bytes")
    return text if memory is None else f"{text}  {memory / 2**30:.1f} GiB"
