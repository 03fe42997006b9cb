"""The parts of NormalCrafter that need no weights, each against a spelling of its own."""

import gc
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ncbench.models.adapters.normalcrafter_conditioning import Conditions, antialiased_resize, clip_pixels
from ncbench.models.adapters.normalcrafter_decode import ChunkedDecoder, blend_in_place
from ncbench.models.adapters.normalcrafter_frames import Canvas
from ncbench.models.adapters.normalcrafter_sequence import SequencePredictor
from ncbench.models.adapters.normalcrafter_settings import NormalCrafterSettings
from ncbench.models.adapters.normalcrafter_unet import OneStep, OneTokenAttention
from ncbench.models.adapters.normalcrafter_windows import WindowStream, cross_fade, schedule

CPU = torch.device("cpu")


def svd_scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (480, 640, 16, 0, 512, 640)),  # the examples of the released code's behaviour
        ((436, 1024), (436, 1024, 6, 0, 448, 1024)),
        ((576, 1024), (576, 1024, 0, 0, 576, 1024)),
        ((1080, 1920), (576, 1024, 0, 0, 576, 1024)),
        ((101, 33), (101, 33, 13, 15, 128, 64)),
        ((1, 1), (1, 1, 31, 31, 64, 64)),
        ((4000, 1), (1024, 1, 0, 31, 1024, 64)),
    ],
)
def test_canvas(size: tuple[int, int], expected: tuple[int, ...]) -> None:
    canvas = Canvas.fit(*size, longest_side=1024)
    found = (canvas.inner_height, canvas.inner_width, canvas.top, canvas.left, canvas.outer_height, canvas.outer_width)
    assert found == expected


def test_frames_lie_between_white_margins_and_come_back() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 33, 50, 3), dtype=np.uint8)
    canvas = Canvas.fit(33, 50, 1024)
    placed = canvas.place(images, CPU)
    expected = np.full((2, 64, 64, 3), 255, np.uint8)
    for index in range(2):  # 31 spare rows: 15 above, 16 below
        expected[index] = cv2.copyMakeBorder(images[index], 15, 16, 7, 7, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    np.testing.assert_array_equal(placed.permute(0, 2, 3, 1).numpy(), expected.astype(np.float32) / 255)
    vectors = 3 * placed - 1.5  # partly beyond -1..1
    clamped = np.clip(3 * (images / 255) - 1.5, -1, 1)
    unit = clamped / np.linalg.norm(clamped, axis=-1, keepdims=True)
    np.testing.assert_allclose(canvas.normals(vectors).numpy(), unit, atol=1e-5)


def test_a_vector_without_direction_stays_zero() -> None:
    answer = Canvas.fit(64, 64, 1024).normals(torch.zeros(1, 3, 64, 64))
    assert not answer.any()


def test_shrinks_like_pillow_and_enlarges_like_opencv() -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(1).uniform(0, 255, (300, 200, 3)), (0, 0), 6)
    image = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    canvas = Canvas.fit(300, 200, 192)
    placed = canvas.place(image[None], CPU)[0].permute(1, 2, 0).numpy() * 255
    expected = np.asarray(Image.fromarray(image).resize((128, 192), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(placed - expected).max() <= 1.001  # Pillow's weights have 22 bits
    vectors = np.random.default_rng(2).uniform(-1, 1, (192, 128, 3)).astype(np.float32)
    answer = canvas.normals(torch.from_numpy(vectors).permute(2, 0, 1)[None])[0].numpy()
    large = cv2.resize(vectors, (200, 300), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(answer * np.linalg.norm(large, axis=-1, keepdims=True), large, atol=1e-4)


@pytest.mark.parametrize("size", [64, 128, 224, 320, 448, 704, 1024])
def test_resizing_for_clip_keeps_a_constant_and_mirrors(size: int) -> None:
    matrix = antialiased_resize(size, 224)
    np.testing.assert_allclose(matrix.sum(dim=1).numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(matrix.numpy(), matrix.flip(0, 1).numpy(), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (256, 448), (576, 1024)])
def test_resizing_for_clip_equals_svds(height: int, width: int) -> None:
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

    frames = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = (_resize_with_antialiasing(frames * 2 - 1, (224, 224)) + 1) / 2
    found = clip_pixels(frames, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-5)


def test_one_step_is_the_algebra_and_the_scheduler() -> None:
    step = OneStep.of(svd_scheduler())
    assert step.sigma == 700
    assert step.timestep == pytest.approx(0.25 * np.log(700), abs=1e-6)
    rng = torch.Generator().manual_seed(0)
    told, velocity = torch.randn(5, 4, 8, 8, generator=rng), torch.randn(5, 4, 8, 8, generator=rng)
    carried = torch.randn(3, 4, 8, 8, generator=rng)
    given: list[torch.Tensor] = []

    def unet(
        latents: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        given.append(latents)
        assert timestep.item() == pytest.approx(step.timestep)
        return velocity

    conditions = Conditions(torch.zeros(5, 1, 2), told)
    ids = torch.zeros(3)
    from_zero = step(unet, conditions, None, ids)
    torch.testing.assert_close(from_zero, -700 / (700**2 + 1) ** 0.5 * velocity, atol=1e-6, rtol=0)
    assert not given[0][:, :4].any()
    assert torch.equal(given[0][:, 4:], told)

    carried_over = step(unet, conditions, carried, ids)
    scheduler = svd_scheduler()
    scheduler.set_timesteps(1)
    noisy = torch.cat([carried, torch.zeros(2, 4, 8, 8)])
    scaled = scheduler.scale_model_input(noisy, scheduler.timesteps[0])
    expected = scheduler.step(velocity, scheduler.timesteps[0], noisy).prev_sample
    torch.testing.assert_close(given[1][:, :4], scaled, atol=1e-7, rtol=0)
    torch.testing.assert_close(carried_over, expected, atol=1e-5, rtol=0)


def test_attention_to_one_token_needs_no_query() -> None:
    torch.manual_seed(0)
    attention = Attention(query_dim=32, cross_attention_dim=12, heads=4, dim_head=8)
    queries, token = torch.randn(3, 50, 32), torch.randn(3, 1, 12)
    attention.set_processor(AttnProcessor2_0())
    expected = attention(queries, encoder_hidden_states=token)
    attention.set_processor(OneTokenAttention())
    torch.testing.assert_close(attention(queries, encoder_hidden_states=token).expand_as(expected), expected)


def naive_schedule(frames: int, size: int, stride: int) -> list[tuple[int, int]]:
    windows = []
    start = 0
    while start + size <= frames:
        windows.append((start, start + size))
        start += stride
    if not windows:
        return [(0, frames)]
    return windows if windows[-1][1] == frames else [*windows, (frames - size, frames)]


@pytest.mark.parametrize("frames", [1, 5, 13, 14, 15, 24, 25, 37, 195])
def test_schedule(frames: int) -> None:
    windows = schedule(frames, 14, 10)
    assert windows == naive_schedule(frames, 14, 10)
    assert {index for start, stop in windows for index in range(start, stop)} == set(range(frames))


def pretend(conditions: Conditions, carried: torch.Tensor | None) -> torch.Tensor:
    """Answer with something that depends on every frame of the window and on what is carried."""
    noisy = torch.zeros_like(conditions.latents)
    if carried is not None:
        noisy[: len(carried)] = carried
    return (conditions.latents * (1 + len(noisy)) + noisy).sin() + conditions.latents.mean() + 0.5 * noisy.mean()


def whole_clip(latents: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    merged: torch.Tensor | None = None
    for start, stop in naive_schedule(len(latents), size, stride):
        part = Conditions(latents[start:stop, :1, 0], latents[start:stop])
        if merged is None or stride == size:
            new = pretend(part, None)
            merged = new if merged is None else torch.cat([merged[:start], new])
            continue
        old = merged[start:]
        new = pretend(part, old)
        for index in range(len(old)):
            share = 1 - (index + 1) / (len(old) + 1)
            new[index] = share * old[index] + (1 - share) * new[index]
        merged = torch.cat([merged[:start], new])
    assert merged is not None
    return merged


@settings(deadline=None, max_examples=60)
@given(data=st.data(), frames=st.integers(1, 40), size=st.integers(1, 9))
def test_a_window_stream_equals_the_whole_clip(data: st.DataObject, frames: int, size: int) -> None:
    stride = data.draw(st.integers(1, size))
    latents = torch.rand(frames, 2, 1, 1, generator=torch.Generator().manual_seed(frames))
    stream, found, start = WindowStream(size, stride, pretend), [], 0
    while start < frames:
        stop = min(frames, start + data.draw(st.integers(1, 7)))
        found += stream.push(Conditions(latents[start:stop, :1, 0], latents[start:stop]))
        assert stream.held <= 2 * size + stride + 7
        start = stop
    found += stream.finish()
    torch.testing.assert_close(torch.cat(found), whole_clip(latents, size, stride), atol=1e-5, rtol=1e-5)
    assert stream.held == 0


def test_no_frames_no_answer() -> None:
    assert schedule(0, 14, 10) == []
    assert ChunkedDecoder(7, lambda latents: latents).finish() == []


def test_cross_fade_reaches_neither_end() -> None:
    faded = cross_fade(torch.ones(4, 1, 1, 1), torch.zeros(4, 1, 1, 1))
    np.testing.assert_allclose(faded.flatten().numpy(), [0.8, 0.6, 0.4, 0.2], atol=1e-6)


def test_chunks_are_counted_from_the_first_frame() -> None:
    seen: list[list[int]] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        seen.append([int(value) for value in latents.flatten()])
        return latents

    decoder = ChunkedDecoder(3, decode)
    values = torch.arange(8.0)[:, None, None, None]
    decoded = decoder.push(values[:2]) + decoder.push(values[2:7]) + decoder.push(values[7:])
    assert decoder.held == 2
    decoded += decoder.finish()
    assert seen == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert torch.equal(torch.cat(decoded), values)
    assert decoder.held == 0


@torch.no_grad()
def test_a_decoder_that_blends_in_place_decodes_the_same() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1
    )
    for tensor in vae.parameters():  # mixing factors too, which start where temporal layers have no say
        tensor.add_(0.1 * torch.randn_like(tensor))
    latents = torch.randn(3, 4, 8, 8)
    decoded = vae.decode(latents, num_frames=3).sample
    blend_in_place(vae)
    torch.testing.assert_close(vae.decode(latents, num_frames=3).sample, decoded, atol=1e-5, rtol=1e-5)


class Stub:
    """Networks that cost nothing and let a frame's colours through."""

    device = CPU

    def condition(self, frames: torch.Tensor) -> Conditions:
        return Conditions(frames.new_zeros(len(frames), 1, 8), frames[:, :, ::8, ::8].clone())

    def predict(self, conditions: Conditions, carried: torch.Tensor | None, ids: object) -> torch.Tensor:
        assert ids == (7.0, 127.0, 0.0)
        return conditions.latents.clone()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.repeat_interleave(8, 2).repeat_interleave(8, 3)


def live_bytes() -> int:
    tensors = [item for item in gc.get_objects() if type(item) is torch.Tensor]
    return sum({item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in tensors}.values())


@pytest.mark.parametrize("together", [5, 60])
def test_memory_does_not_grow_with_the_video(together: int) -> None:
    """Frames held at every answer, and the bytes of all tensors alive at the tenth answer from the end."""
    images = np.random.default_rng(0).integers(1, 256, (together, 64, 64, 3), dtype=np.uint8)

    def run(frames: int) -> tuple[int, int]:
        predictor = SequencePredictor(Stub(), NormalCrafterSettings())  # type: ignore[arg-type]  # quacks alike
        before, held, done, alive = live_bytes(), 0, 0, 0

        def answers() -> Iterator[np.ndarray]:
            for _ in range(0, frames, together):
                yield from predictor.push(images)
            yield from predictor.finish()

        for answer in answers():
            done += len(answer)
            held = max(held, predictor.held)
            if done == frames - 50:
                alive = live_bytes() - before
        assert done == frames
        return held, alive

    short, long = run(120), run(120 + 7 * 60)
    assert long == short
    assert 0 < long[0] <= 3 * 14 + 10 + 7
    assert long[1] > 0


def test_settings_travel_to_the_network() -> None:
    predictor = SequencePredictor(Stub(), NormalCrafterSettings())  # type: ignore[arg-type]  # quacks alike
    images = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    found = np.concatenate([*predictor.push(images), *predictor.finish()])
    colours = images[:, ::8, ::8].repeat(8, 1).repeat(8, 2) / 255
    np.testing.assert_allclose(found, colours / np.linalg.norm(colours, axis=-1, keepdims=True), atol=1e-5)
