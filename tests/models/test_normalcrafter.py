"""NormalCrafter with tiny random weights in the published layout, against a literal, slow spelling of its formulas."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ncbench import catalog
from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.adapters.normalcrafter import NormalCrafter
from ncbench.models.base import Clip, Runtime

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_tiny(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save networks of SVD's architecture, with few channels and lively random weights."""
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=16,
        num_attention_heads=(2, 4),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=1,
        scaling_factor=0.18215,
        force_upcast=True,
    )
    clip = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            patch_size=56,
            projection_dim=16,
            hidden_act="gelu",
        )
    )
    for network in (unet, vae, clip):
        for name, tensor in network.named_parameters():
            torch.nn.init.normal_(tensor, std=0.1 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
            if "norm" in name and name.endswith("weight"):
                tensor.data += 1
    unet.to(dtype).save_pretrained(folder / "unet")
    vae.to(dtype).save_pretrained(folder / "vae")
    clip.to(dtype).save_pretrained(folder / "image_encoder", variant="fp16")
    EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    write_json(folder / "feature_extractor" / "preprocessor_config.json", {"image_mean": MEAN, "image_std": STD})
    return folder


def write_json(path: Path, values: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("normalcrafter"))


@pytest.fixture(scope="module")
def model(weights: Path) -> NormalCrafter:
    return loaded(weights)


def loaded(folder: Path, settings: dict[str, object] | None = None, **runtime: object) -> NormalCrafter:
    made = NormalCrafter(settings or {})
    made.load(Runtime(weights=folder, **runtime))
    return made


def video(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (frames, 3, 5, 5)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").permute(0, 2, 3, 1).numpy()
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def clips(images: np.ndarray, *lengths: int) -> Iterator[Clip]:
    start = 0
    for length in lengths:
        yield Clip("video", tuple(range(start, start + length)), images[start : start + length])
        start += length


class Literal:
    """The formulas as they are written down, one frame after the other, through diffusers' own classes."""

    def __init__(self, folder: Path) -> None:
        self.unet = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet")
        self.vae = AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae")
        self.clip = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", variant="fp16")
        self.scheduler = EulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        self.known: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(self, canvas: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return CLIP's token and the VAE's latent of one frame; they depend on that frame alone."""
        key = canvas.tobytes()
        if key not in self.known:
            picture = canvas / 255
            small = (resize_slowly(picture) - MEAN) / STD
            token = self.clip(torch.tensor(small, dtype=torch.float32).permute(2, 0, 1)[None]).image_embeds
            # channels interleaved in memory, as released: torch's group normalization on the CPU rounds by layout
            pixels = torch.tensor(picture[None] * 2 - 1, dtype=torch.float32).permute(0, 3, 1, 2)
            self.known[key] = token, self.vae.encode(pixels).latent_dist.mode()[0]
        return self.known[key]

    @torch.no_grad()
    def __call__(self, images: np.ndarray, size: int = 14, stride: int = 10, chunk: int = 7) -> np.ndarray:
        """Return the raw vectors, (T, H, W, 3)."""
        height, width = images.shape[1:3]
        tall, wide = math.ceil(height / 64) * 64, math.ceil(width / 64) * 64
        top, left = (tall - height) // 2, (wide - width) // 2
        tokens, told = [], []
        for image in images:
            canvas = np.full((tall, wide, 3), 255, np.uint8)
            canvas[top : top + height, left : left + width] = image
            token, latent = self.look(canvas)
            tokens.append(token)
            told.append(latent)
        latents = self.windows(tokens, told, size, stride)
        frames = []
        for start in range(0, len(latents), chunk):
            part = torch.stack(latents[start : start + chunk]) / self.vae.config.scaling_factor
            frames.extend(self.vae.decode(part, num_frames=len(part)).sample.clamp(-1, 1))
        raw = torch.stack(frames).permute(0, 2, 3, 1).numpy()
        return raw[:, top : top + height, left : left + width]

    def windows(
        self, tokens: list[torch.Tensor], told: list[torch.Tensor], size: int, stride: int
    ) -> list[torch.Tensor]:
        frames = len(told)
        size = min(size, frames)
        starts = [start for start in range(0, frames, stride) if start + size <= frames]
        if starts[-1] + size < frames:
            starts.append(frames - size)
        merged: list[torch.Tensor] = []
        for start in starts:
            noisy = [torch.zeros_like(told[0]) for _ in range(size)]
            overlap = len(merged) - start if stride < size else 0
            for index in range(overlap):
                noisy[index] = merged[start + index]
            new = self.one_step(noisy, told[start : start + size], tokens[start : start + size])
            for index in range(overlap):
                share = 1 - (index + 1) / (overlap + 1)
                new[index] = share * merged[start + index] + (1 - share) * new[index]
            merged[start:] = new
        return merged

    def one_step(
        self, noisy: list[torch.Tensor], told: list[torch.Tensor], tokens: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        per_frame = torch.stack(tokens)

        def swap(block: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
            return args, {**kwargs, "encoder_hidden_states": per_frame}

        blocks = [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]
        looking = [block for block in blocks if getattr(block, "has_cross_attention", False)]
        handles = [block.register_forward_pre_hook(swap, with_kwargs=True) for block in looking]
        self.scheduler.set_timesteps(1)
        step = self.scheduler.timesteps[0]
        sample = torch.stack(noisy)[None]
        scaled = self.scheduler.scale_model_input(sample, step)
        answer = self.unet(
            torch.cat([scaled, torch.stack(told)[None]], dim=2),
            step,
            encoder_hidden_states=per_frame[:1],
            added_time_ids=torch.tensor([[7.0, 127.0, 0.0]]),
        ).sample
        for handle in handles:
            handle.remove()
        return list(self.scheduler.step(answer, step, sample).prev_sample[0])


def resize_slowly(picture: np.ndarray) -> np.ndarray:
    """Blur and interpolate along one side, then the other; float64, tap by tap."""
    for axis in (0, 1):
        lines = np.moveaxis(picture, axis, 0)
        size = len(lines)
        sigma = max((size / 224 - 1) / 2, 0.001)
        taps = int(max(4 * sigma, 3))
        reach = (taps + (taps % 2 == 0)) // 2
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        padded = np.pad(lines, [(reach, reach), (0, 0), (0, 0)], mode="reflect")
        blurred = sum(weight / weights.sum() * padded[tap : tap + size] for tap, weight in enumerate(weights))
        small = np.zeros((224, *blurred.shape[1:]))
        for row in range(224):
            centre = row * (size - 1) / 223
            first = math.floor(centre)
            for tap in range(first - 1, first + 3):
                small[row] += keys(abs(centre - tap)) * blurred[min(max(tap, 0), size - 1)]
        picture = np.moveaxis(small, 0, axis)
    return picture


def keys(x: float, a: float = -0.75) -> float:
    """Keys' cubic, with torch's parameter."""
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@pytest.fixture(scope="module")
def literal(weights: Path) -> Literal:
    return Literal(weights)


# around one window (13 to 15), two with their exact overlap (24), several and a rest (37): cut from one video, of
# which the reference looks at each frame once; sizes that need padding on one side, on both, and none
@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [(1, 90, 70), (3, 51, 70), (2, 64, 64), (13, 33, 61), (14, 33, 61), (15, 33, 61), (24, 33, 61), (37, 33, 61)],
)
def test_equals_the_literal_formulas(
    model: NormalCrafter, literal: Literal, frames: int, height: int, width: int
) -> None:
    images = video(37, height, width)[:frames]
    answer = model.predict(Clip("video", tuple(range(frames)), images))
    raw = literal(images)
    length = np.linalg.norm(raw, axis=-1, keepdims=True)
    assert answer.shape == images.shape
    assert answer.dtype == np.float32
    assert np.std(raw) > 0.2  # the comparison is about something
    np.testing.assert_allclose(np.linalg.norm(answer, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(answer * length, raw, atol=1e-4)


@pytest.mark.parametrize(("window", "stride", "chunk"), [(4, 4, 3), (4, 1, 5)])
def test_other_windows_equal_the_literal_formulas(
    weights: Path, literal: Literal, window: int, stride: int, chunk: int
) -> None:
    images = video(6, 40, 40)
    model = loaded(weights, {"window": window, "stride": stride, "decode_chunk": chunk})
    raw = literal(images, window, stride, chunk)
    length = np.linalg.norm(raw, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.concatenate(list(model.stream(clips(images, 6)))) * length, raw, atol=1e-4)


def test_a_stream_equals_the_whole(weights: Path) -> None:
    model = loaded(weights, {"window": 4, "stride": 3, "decode_chunk": 2})
    images = video(12, 40, 40)
    whole = model.predict(Clip("video", tuple(range(12)), images))
    answers = list(model.stream(clips(images, 1, 3, 6, 2)))
    assert [len(answer) for answer in answers] == [1, 3, 6, 2]
    np.testing.assert_allclose(np.concatenate(answers), whole, atol=1e-3)


def test_larger_frames_are_shrunk_and_answers_enlarged(weights: Path, literal: Literal) -> None:
    images = video(2, 100, 140)
    answer = loaded(weights, {"longest_side": 70}).predict(Clip("video", (0, 1), images))
    assert answer.shape == (2, 100, 140, 3)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=-1), 1, atol=1e-5)
    # at 50 x 70 everything is as if the frames had come so; the enlarged map passes through the same places
    small = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2).float(), (50, 70), mode="bicubic", antialias=True
    )
    shrunk = small.round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()
    raw = torch.from_numpy(np.array(literal(shrunk))).permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(raw, (100, 140), mode="bilinear").permute(0, 2, 3, 1).numpy()
    length = np.linalg.norm(large, axis=-1, keepdims=True)
    np.testing.assert_allclose(answer * length, large, atol=1e-4)


def test_half_precision_keeps_the_encoder_in_float32(weights: Path, model: NormalCrafter) -> None:
    images = video(3, 40, 40)
    half = loaded(weights, precision="bf16")
    answer = half.predict(Clip("video", (0, 1, 2), images))
    vae = half._networks.vae
    assert {tensor.dtype for tensor in vae.encoder.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in vae.decoder.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in half._networks.unet.parameters()} == {torch.bfloat16}
    cosine = np.sum(answer * model.predict(Clip("video", (0, 1, 2), images)), axis=-1)
    assert np.degrees(np.arccos(np.median(cosine))) < 5
    # a second run finds the number formats where the first one left them
    np.testing.assert_array_equal(half.predict(Clip("video", (0, 1, 2), images)), answer)


def test_weights_stored_in_half_precision_compute_in_float32(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, torch.float16)
    images = video(2, 40, 40)
    answer = loaded(folder).predict(Clip("video", (0, 1), images))
    raw = Literal(folder)
    raw.unet.float(), raw.vae.float(), raw.clip.float()
    expected = raw(images)
    length = np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(answer * length, expected, atol=1e-4)


def test_less_memory_changes_no_answer(weights: Path) -> None:
    model, images = loaded(weights), video(3, 40, 40)
    before = model.predict(Clip("video", (0, 1, 2), images))
    assert model.use_less_memory()
    assert not model.use_less_memory()  # a CPU has nowhere to move the networks to
    np.testing.assert_allclose(model.predict(Clip("video", (0, 1, 2), images)), before, atol=1e-3)
    assert not NormalCrafter({}).use_less_memory()


def test_progress_counts_frames(weights: Path) -> None:
    seen: list[tuple[int, int]] = []
    settings = {"window": 2, "stride": 2, "decode_chunk": 2}
    list(loaded(weights, settings, progress=lambda *counts: seen.append(counts)).stream(clips(video(5, 40, 40), 5)))
    assert seen == [(2, 0), (4, 0), (5, 0)]


def test_compiles_on_request(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    loaded(weights, compile=True)
    assert compiled == ["PerFrameUNet", "TemporalDecoder"]


def test_an_answer_comes_before_the_video_ends(weights: Path) -> None:
    model = loaded(weights, {"window": 4, "stride": 3, "decode_chunk": 2})
    taken: list[int] = []

    def source() -> Iterator[Clip]:
        for clip in clips(video(12, 30, 30), *[1] * 12):
            taken.append(clip.frames[-1] + 1)
            yield clip

    next(model.stream(source()))
    # the first two frames are final once the window that starts at 3 and ends at 7 is known to come
    assert taken[-1] == 7


def test_refuses_what_is_no_video(model: NormalCrafter) -> None:
    images = video(2, 40, 40)
    with pytest.raises(ModelError, match="change from 40x40 to 41x40"):
        list(model.stream([Clip("video", (0, 1), images), Clip("video", (2,), video(1, 41, 40))]))
    with pytest.raises(ModelError, match="uint8"):
        model.predict(Clip("video", (0, 1), images.astype(np.uint16)))
    with pytest.raises(ModelError, match=r"\(2, 40, 40\)"):
        model.predict(Clip("video", (0, 1), images[..., 0]))
    with pytest.raises(ModelError, match="at least one"):
        model.predict(Clip("video", (), images[:0]))
    with pytest.raises(ModelError, match="load"):
        NormalCrafter({}).predict(Clip("video", (0, 1), images))


def test_numbers_that_are_not_finite_are_no_answer(weights: Path) -> None:
    model = loaded(weights)
    model._networks.vae.decoder.conv_out.bias[1] = math.inf
    with pytest.raises(ModelError, match="not finite.*bf16"):
        model.predict(Clip("video", (0, 1), video(2, 40, 40)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 4, "stride": 5}, "skip frames"),
        ({"windw": 4}, "Did you mean 'window'"),
        ({"decode_chunk": 0}, "decode_chunk"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(CardError, match=message):
        NormalCrafter(settings)


def copy_of(weights: Path, target: Path) -> Path:
    """Link every file, so that a test can replace one."""
    for path in weights.rglob("*.*"):
        linked = target / path.relative_to(weights)
        linked.parent.mkdir(parents=True, exist_ok=True)
        linked.symlink_to(path)
    return target


def replace(path: Path) -> Path:
    path.unlink()
    return path


TENSORS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "image_encoder": "model.fp16.safetensors",
}


@pytest.mark.parametrize("part", TENSORS)
@pytest.mark.parametrize("fault", ["missing", "misnamed", "misshapen", "cut off", "no file", "no config"])
def test_a_fault_in_the_weights_is_named(weights: Path, tmp_path: Path, part: str, fault: str) -> None:
    folder = copy_of(weights, tmp_path)
    path = folder / part / TENSORS[part]
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if name.endswith("weight"))
    expected = name
    if fault == "cut off":
        data = path.read_bytes()
        replace(path).write_bytes(data[: len(data) // 2])
        expected = path.name
    elif fault == "no file":
        replace(path)
        expected = f"{part}: expected .*safetensors"
    elif fault == "no config":
        replace(folder / part / "config.json")
        expected = f"{part}/config.json"
    else:
        tensor = tensors.pop(name)
        if fault == "misnamed":
            tensors["the_" + name] = tensor
        if fault == "misshapen":
            tensors[name] = torch.cat([tensor, tensor]).contiguous()
        save_file(tensors, replace(path))
    with pytest.raises(ModelError, match=expected):
        loaded(folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"in_channels": 4}, "conv_in.weight"),
        ("unet/config.json", {"down_block_types": ["Unknown"] * 4}, "describes no UNetSpatioTemporal"),
        ("vae/config.json", {"block_out_channels": 3}, "describes no AutoencoderKLTemporalDecoder"),
        ("image_encoder/config.json", {"num_attention_heads": 5}, "image_encoder: cannot be read as a CLIP"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "'epsilon'.*'v_prediction'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "none such"}, "describes no EulerDiscreteScheduler"),
        ("feature_extractor/preprocessor_config.json", {"image_std": [1.0]}, "image_std to be three numbers"),
    ],
)
def test_a_wrong_configuration_is_named(
    weights: Path, tmp_path: Path, file: str, change: dict[str, object], message: str
) -> None:
    path = copy_of(weights, tmp_path) / file
    values = json.loads(path.read_text()) | change
    write_json(replace(path), values)
    with pytest.raises(ModelError, match=message):
        loaded(tmp_path)


def test_networks_that_do_not_belong_together(weights: Path, tmp_path: Path) -> None:
    folder = copy_of(weights, tmp_path)
    for path in (folder / "image_encoder").iterdir():
        path.unlink()
    other = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, projection_dim=24
        )
    )
    other.save_pretrained(folder / "image_encoder")
    with pytest.raises(ModelError, match="size of a CLIP embedding: expected 24, found 16"):
        loaded(folder)


def test_json_that_is_none(weights: Path, tmp_path: Path) -> None:
    path = replace(copy_of(weights, tmp_path) / "scheduler" / "scheduler_config.json")
    path.write_text("[1, 2]")
    with pytest.raises(ModelError, match="expected a JSON object, found list"):
        loaded(tmp_path)
    path.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        loaded(tmp_path)
    with pytest.raises(ModelError, match="names no folder"):
        NormalCrafter({}).load(Runtime())


def test_the_card_names_every_file_and_the_released_values(weights: Path) -> None:
    card = catalog.load(ModelCard, "normalcrafter")
    files = {str(path.relative_to(weights)) for path in weights.rglob("*.*")}
    assert card.weights is not None
    assert set(card.weights.files) == files
    assert card.axes == "opengl"
    assert NormalCrafter(card.settings).settings == NormalCrafter({}).settings
    assert card.settings == {
        "longest_side": 1024,
        "window": 14,
        "stride": 10,
        "decode_chunk": 7,
        "fps": 7.0,
        "motion_bucket": 127.0,
    }
