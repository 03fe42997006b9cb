"""Decoding whose graphs are made one at a time: deferred back-propagation.

The losses of the second stage look at decoded pictures, and a decoder's graph is many times as large as its pictures.
So the pictures are decoded without a graph; when their gradient is known, each chunk is decoded once more, with its
graph, which takes the chunk's gradient back to its latents and is dropped before the next (Zhang et al., "ARF: Artistic
Radiance Fields", 2022, section 4.3; Kuang et al., "Buffer Anytime", 2025, equations 7 to 10). By the chain rule nothing
is approximated. Torch's activation checkpointing of each chunk is exactly that, with the number format restored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

Decode = Callable[[torch.Tensor], torch.Tensor]
"""Decodes one chunk, (n, C, h, w), of consecutive frames of one clip; the same again when called again."""


def chunk_lengths(clips: int, frames: int, chunk: int) -> list[int]:
    """Cut clips into chunks that are counted from each clip's first frame.

    Args:
        clips: How many.
        frames: Of each.
        chunk: Frames at most to a chunk.

    Returns:
        Frames of each chunk, in order.

    Examples:
        >>> chunk_lengths(2, 5, 3)
        [3, 2, 3, 2]
    """
    return [min(chunk, frames - start) for _ in range(clips) for start in range(0, frames, chunk)]


def decode_in_chunks(
    decode: Decode, latents: torch.Tensor, clips: int, chunk: int, *, deferred: bool = True
) -> torch.Tensor:
    """Decode clips chunk by chunk.

    Args:
        decode: Decodes one chunk.
        latents: (B T, C, h, w), clip after clip.
        clips: B.
        chunk: Frames at most to a chunk; a decoder with temporal layers sees one chunk at a time.
        deferred: Whether to keep no chunk's graph: a backward pass then decodes each chunk once more. The gradients, of
            the latents and of parameters of ``decode`` that require them, are the same.

    Returns:
        (B T, 3, H, W).
    """
    lengths = chunk_lengths(clips, len(latents) // clips, chunk)
    parts = torch.split(latents, lengths)
    if deferred and torch.is_grad_enabled():
        # the decoder draws no random numbers, so that their state need not be restored
        return torch.cat([checkpoint(decode, part, use_reentrant=False, preserve_rng_state=False) for part in parts])
    return torch.cat([decode(part) for part in parts])
