"""What a device is asked about: its name, its memory, and whether it ran out of it. Only CUDA needs torch for that."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

from ncbench.errors import ModelError
from ncbench.models.base import MemoryClass
from ncbench.provenance import peak_memory_bytes

_GIB = 1 << 30
_SLACK = 0.9  # a card sold as 24 GB shows some less


class OutOfMemoryError(ModelError):
    """The device or the machine ran out of memory during a prediction."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: Python's, torch's on a device, or torch's on the CPU."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # the CPU allocator of torch and cuDNN have no class of their own
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDNN_STATUS_ALLOC_FAILED" in text)


@dataclass(frozen=True)
class Device:
    """A device by torch's name; on anything but CUDA there is nothing to wait for, and memory is the process's.

    Attributes:
        name: ``cpu``, ``cuda:0``, ...
    """

    name: str

    @property
    def is_cuda(self) -> bool:
        """Whether it is an NVIDIA (or ROCm) device."""
        return self.name.split(":")[0] == "cuda"

    def describe(self) -> str:
        """Name it for the record: ``cuda:0 NVIDIA H200``."""
        if not self.is_cuda:
            return self.name
        import torch

        return f"{self.name} {torch.cuda.get_device_name(self.name)}"

    def require(self) -> None:
        """Check that it is here.

        Raises:
            ModelError: It is a CUDA device that this machine lacks.
        """
        if not self.is_cuda:
            return
        import torch

        here = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if self.name not in [*here, *(["cuda"] if here else [])]:
            raise ModelError(
                f"device '{self.name}' is not here; this machine has {', '.join(['cpu', *here])}. Name one of these."
            )

    def synchronize(self) -> None:
        """Wait until all queued work is done, so that a clock tells the truth."""
        if self.is_cuda:
            import torch

            torch.cuda.synchronize(self.name)

    def reset_peak(self) -> None:
        """Start to measure the peak anew; a process's peak on the CPU cannot be reset."""
        if self.is_cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self.name)

    def peak_bytes(self) -> int | None:
        """Return the peak: of CUDA memory since ``reset_peak``, else of the process since it began."""
        if not self.is_cuda:
            return peak_memory_bytes()
        import torch

        return int(torch.cuda.max_memory_allocated(self.name))

    def total_bytes(self) -> int | None:
        """Return the memory of a CUDA device; None elsewhere."""
        if not self.is_cuda:
            return None
        import torch

        return int(torch.cuda.get_device_properties(self.name).total_memory)

    def release(self) -> None:
        """Give back what nobody holds any more, before another try."""
        gc.collect()
        if self.is_cuda:
            import torch

            torch.cuda.empty_cache()

    def shortage(self, memory: MemoryClass) -> str | None:
        """Write a note where the device has less memory than a model asks for; None where it has enough."""
        total = self.total_bytes()
        if total is None or memory == "light" or total >= _SLACK * _GIB * int(memory.removesuffix("GB")):
            return None
        return f"{self.name} has {total / _GIB:.0f} GiB, less than the {memory} that the model asks for"
