"""Deferred back-propagation gives the plain graph's gradients, and keeps one chunk's graph at a time."""

import weakref

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder

from ncbench.training.deferred import chunk_lengths, decode_in_chunks


@pytest.mark.parametrize(
    ("clips", "frames", "chunk", "expected"),
    [(1, 7, 7, [7]), (1, 8, 7, [7, 1]), (2, 5, 2, [2, 2, 1, 2, 2, 1]), (3, 1, 4, [1, 1, 1])],
)
def test_chunks_never_join_two_clips(clips: int, frames: int, chunk: int, expected: list[int]) -> None:
    assert chunk_lengths(clips, frames, chunk) == expected


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(("clips", "chunk"), [(1, 2), (2, 3), (2, 1)])
def test_gradients_equal_the_plain_graph(frozen: bool, clips: int, chunk: int) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2)
    vae.double().requires_grad_(not frozen)

    def decode(part: torch.Tensor) -> torch.Tensor:
        return vae.decode(part, num_frames=len(part)).sample

    start = torch.randn(clips * 4, 4, 4, 4, dtype=torch.float64)
    # a loss that ties all frames together, as one over time would
    weights = torch.randn(clips * 4, 3, 8, 8, dtype=torch.float64)
    results = []
    for deferred in (False, True):
        latents = start.clone().requires_grad_()
        vae.zero_grad()
        decoded = decode_in_chunks(decode, latents * 2, clips, chunk, deferred=deferred)
        ((decoded * weights).sum() ** 2 + (decoded[1:] - decoded[:-1]).abs().sum()).backward()
        parameters = [p.grad.clone() for p in vae.decoder.parameters() if p.grad is not None]
        results.append([decoded.detach(), latents.grad, *parameters])
    assert len(results[0]) == len(results[1])
    assert (len(results[0]) == 2) == frozen
    for plain, found in zip(*results, strict=True):
        assert (plain - found).norm() <= 1e-6 * plain.norm()


class Tracked:
    """A decoder whose saved tensor is watched: it lies in a numpy array, which says when it is freed."""

    def __init__(self) -> None:
        self.alive = self.most = self.calls = 0

    def __call__(self, part: torch.Tensor) -> torch.Tensor:
        array = np.full(part.shape, 2.0, np.float32)
        self.alive += 1
        self.calls += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._gone)
        return (part * torch.from_numpy(array)).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)

    def _gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize(("deferred", "after", "most"), [(False, 5, 5), (True, 0, 1)])
def test_no_more_than_one_chunks_graph_is_alive(deferred: bool, after: int, most: int) -> None:
    decode = Tracked()
    latents = torch.randn(10, 4, 2, 2, requires_grad=True)
    decoded = decode_in_chunks(decode, latents, 1, 2, deferred=deferred)
    assert decode.alive == after
    decoded.square().sum().backward()
    assert decode.most == most
    assert decode.calls == (10 if deferred else 5)


def test_without_gradients_nothing_is_decoded_twice() -> None:
    decode = Tracked()
    with torch.no_grad():
        decode_in_chunks(decode, torch.randn(4, 4, 2, 2), 1, 2)
    assert decode.calls == 2


def test_number_format_is_that_of_the_forward_pass() -> None:
    seen = []

    def decode(part: torch.Tensor) -> torch.Tensor:
        answer = part @ torch.ones(2, 3)
        seen.append(answer.dtype)
        return answer.square().float()  # after which a recomputation may stop

    latents = torch.randn(4, 1, 2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoded = decode_in_chunks(decode, latents, 1, 2)
    decoded.sum().backward()
    assert seen == [torch.bfloat16] * 4
