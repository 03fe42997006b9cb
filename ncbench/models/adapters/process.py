"""Run a command with a time limit and a log; whatever happens, nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ncbench.errors import ModelError
from ncbench.files import writing

_GRACE_SECONDS = 5.0
_TAIL_BYTES = 2000
_TAIL_LINES = 8


def run_command(
    argv: Sequence[str],
    log: Path,
    timeout: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end, without a shell, in a process group of its own.

    Args:
        argv: Program and arguments.
        log: File for all that it prints; replaced.
        timeout: Seconds; past them, or where this process is interrupted, the whole group is ended.
        cwd: Folder that it runs in; None is the current one.
        environment: All of its environment variables; None gives it ours.

    Raises:
        ModelError: It cannot be started, fails, or takes too long; the message holds the end of the log.
        StoreError: The log cannot be written.
    """
    with writing(log), log.open("wb") as stream:
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own card names it, and no shell reads it
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise ModelError(
                f"command '{argv[0]}' cannot be started ({error.strerror or error}). Give its full path in 'command', "
                "such as the python of its own environment, and check 'folder'."
            ) from error
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"command '{argv[0]}' did not end within {timeout:g} s and was stopped. Raise 'timeout_seconds', or "
                f"see why in {log}{_tail(log)}"
            ) from None
        finally:
            _end(process)
    if code != 0:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise ModelError(f"command '{argv[0]}' {how}. All that it printed: {log}{_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group, gently, then by force; a command that ended well is left alone."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    if process.returncode != 0:
        _signal(process, signal.SIGKILL)  # children that outlive their parent, too
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses to signal a group of zombies
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    """Write the end of a log as the end of a message."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        if lines:
            return ", which ends:\n  " + "\n  ".join(lines)
    return ""
