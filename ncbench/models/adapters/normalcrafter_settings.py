"""NormalCrafter's settings; without torch, so that listing models stays quick."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ncbench.settings import Settings


class NormalCrafterSettings(Settings):
    """What shapes the answers; the values are those of the released code.

    Attributes:
        longest_side: Pixels that the longer side of larger frames is brought down to.
        multiple: Of which both sides of the white canvas are made multiples; what the networks shrink by, or more.
        window: Frames that the U-Net sees together.
        stride: From one window to the next.
        decode_chunk: Frames that the decoder sees together.
        fps: Frames a second that the U-Net is told, whatever the video's are.
        motion_bucket: How much motion the U-Net is told to expect.
    """

    longest_side: int = Field(1024, ge=64)
    multiple: int = Field(64, ge=1)
    window: int = Field(14, ge=1)
    stride: int = Field(10, ge=1)
    decode_chunk: int = Field(7, ge=1)
    fps: float = Field(7.0, gt=0)
    motion_bucket: float = Field(127.0, ge=0)

    @model_validator(mode="after")
    def _windows_meet(self) -> Self:
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} would skip frames between windows of {self.window}")
        return self
