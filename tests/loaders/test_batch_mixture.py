from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch

from ncbench.datasets.integrity import verify
from ncbench.datasets.pictures import decode_image
from ncbench.datasets.store import open_store
from ncbench.errors import CardError, StoreError
from ncbench.geometry.axes import AXES, convert_axes
from ncbench.loaders.batch import Batch
from ncbench.loaders.clips import NormalClips, NormalFrames
from ncbench.loaders.interop import arrow_table, decode_rows
from ncbench.loaders.loader import Loader
from ncbench.loaders.training_copy import write_training_copy


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("image", ["uint8", "float32"])
def test_a_batch_without_changes_is_what_the_store_holds(moving, axes, image):
    columns = ["depth", "flow", "occluded", "intrinsics", "cam_to_world"]
    clips = NormalClips(moving, length=(2, 2), shuffle="none", columns=columns, axes=axes, image=image)
    batch = next(iter(Loader(clips)))
    assert batch["sequence"] == ["room4"]
    for time in range(2):
        frame = moving.read("room4", time)
        expected = convert_axes(frame.normal, "opencv", axes)
        np.testing.assert_array_equal(batch["normal"][0, time].permute(1, 2, 0), expected)
        for name in ("valid", "depth", "occluded", "intrinsics", "cam_to_world"):
            np.testing.assert_array_equal(batch[name][0, time], getattr(frame, name))
        np.testing.assert_array_equal(batch["flow"][0, time].permute(1, 2, 0), frame.flow)
        picture = decode_image(frame.image)
        scaled = picture / 127.5 - 1 if image == "float32" else picture
        np.testing.assert_allclose(batch["image"][0, time].permute(1, 2, 0), scaled, atol=1e-6)


def test_the_documented_types_are_the_real_ones(moving):
    columns = ["depth", "flow", "occluded", "intrinsics", "cam_to_world"]
    batch = next(iter(Loader(NormalClips(moving, length=(3, 3), batch_size=1, columns=columns, flip=1.0))))
    height, width = batch["valid"].shape[-2:]
    expected = {
        "image": ((3, height, width), torch.uint8),
        "normal": ((3, height, width), torch.float32),
        "valid": ((height, width), torch.bool),
        "depth": ((height, width), torch.float32),
        "flow": ((2, height, width), torch.float32),
        "occluded": ((height, width), torch.bool),
        "intrinsics": ((3, 3), torch.float64),
        "cam_to_world": ((4, 4), torch.float64),
        "frames": ((), torch.int64),
    }
    for name, (shape, kind) in expected.items():
        assert (tuple(batch[name].shape), batch[name].dtype) == ((1, 3, *shape), kind), name
    assert set(batch) == set(Batch.__annotations__)
    assert all(name in Batch.__doc__ for name in batch)
    assert batch["flipped"].tolist() == [True]
    frames = NormalFrames(moving, columns=columns)[0]
    assert {name: tuple(frames[name].shape) for name in ("frames", "cam_to_world")} == {
        "frames": (),
        "cam_to_world": (4, 4),
    }


def test_all_frames_of_a_clip_are_changed_alike(make_store):
    """A store whose frames are all the same stays so under every change."""
    store = make_store({"a": range(6)})
    changes = {
        "photometric": {"brightness": 0.5, "hue": 90, "saturation": 0.5, "contrast": 0.5, "gamma": 0.5},
        "flip": 0.5,
        "resize": {"short_edge": 12, "scale": (1, 2)},
        "crop": {"height": 12, "width": 12},
    }
    still = open_store(store.path)
    clips = NormalClips(still, length=(3, 3), **changes)
    plain = NormalClips(still, length=(3, 3), flip=0.5, resize=changes["resize"], crop=changes["crop"])
    for epoch in range(4):
        for ref in (clips.plan(epoch).ref(index) for index in range(2)):
            sample, bare = clips.sample(ref), plain.sample(ref)
            assert sample["frames"].tolist() == sorted(sample["frames"].tolist())
            torch.testing.assert_close(sample["normal"], bare["normal"])  # colours leave geometry and draws alone
            assert sample["flipped"] == bare["flipped"]


def test_clips_run_backwards_when_asked(moving):
    sample = NormalClips(moving, length=(4, 4), reverse=1.0)[0]
    assert sample["frames"].tolist() == sorted(sample["frames"].tolist(), reverse=True)


def test_what_a_store_has_not_is_unknown(tiny_pair):
    columns = ["depth", "flow", "occluded", "intrinsics", "cam_to_world"]
    sample = NormalClips(tiny_pair["one"], columns=columns)[0]
    assert (sample["depth"] == 0).all()
    assert not sample["occluded"].any()
    assert all(sample[name].isnan().all() for name in ("flow", "intrinsics", "cam_to_world"))


def test_a_frame_without_picture_is_named(moving, seal_frames):
    frames = [replace(moving[row], image=None if row == 1 else moving[row].image) for row in range(3)]
    store = seal_frames(frames)
    with pytest.raises(StoreError, match="sequence 'room4' frame 1 has no picture"):
        list(Loader(NormalClips(store)))


def test_a_training_copy_gives_the_same_batches_from_pixels(moving, tmp_path):
    manifest = write_training_copy(moving, tmp_path / "copy")
    copy = open_store(tmp_path / "copy")
    assert verify(tmp_path / "copy") == []
    assert (manifest.rows, copy.sequences) == (len(moving), moving.sequences)
    for settings in ({}, {"flip": 1.0, "axes": "opengl", "image": "float32"}):
        for left, right in zip(
            Loader(NormalClips(moving, **settings)), Loader(NormalClips(copy, **settings)), strict=True
        ):
            for name in ("image", "normal", "valid"):
                assert torch.equal(left[name], right[name]), name
    np.testing.assert_array_equal(copy[0].extra["rgb"], decode_image(moving[0].image))
    assert write_training_copy(moving, tmp_path / "copy") == manifest
    with pytest.raises(StoreError, match="is a training copy itself"):
        write_training_copy(copy, tmp_path / "again")
    with pytest.raises(StoreError, match="another store"):
        write_training_copy(moving, moving.path)


def counts(clips, epochs):
    refs = np.concatenate([clips.plan(epoch).refs for epoch in range(epochs)])
    return [refs[refs[:, 0] == index] for index in range(len(clips.mixture.members))]


def test_shares_by_hand_come_true_and_every_clip_comes_equally_often(make_store):
    stores = {"big": make_store({"a": range(60)}, "big"), "small": make_store({"b": range(20)}, "small")}
    sets = [{"dataset": "big", "weight": 1}, {"dataset": "small", "weight": 3}]
    clips = NormalClips(stores, sets=sets, frames_per_epoch=40)
    assert clips.mixture.quotas == [10, 30]
    big, small = counts(clips, 12)
    assert (len(big), len(small)) == (120, 360)
    assert set(np.bincount(big[:, 2])) == {2}  # two passes of 60, eighteen of 20: nothing more often than the rest
    assert set(np.bincount(small[:, 2])) == {18}


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.75), (2.0, 3**0.5 / (1 + 3**0.5)), (1e9, 0.5)])
def test_temperature_evens_out(make_store, temperature, share):
    stores = {"big": make_store({"a": range(60)}, "big"), "small": make_store({"b": range(20)}, "small")}
    quotas = NormalClips(stores, temperature=temperature, frames_per_epoch=8000).mixture.quotas
    assert quotas[0] / 8000 == pytest.approx(share, abs=1e-3)


def test_balance_by_samples_makes_clips_proportional_to_frames(make_store):
    stores = {"video": make_store({"a": range(300)}, "video"), "single": make_store({"b": range(100)}, "single")}
    sets = [{"dataset": "video"}, {"dataset": "single", "length": [1, 1]}]
    clips = NormalClips(stores, sets=sets, length=(1, 5), balance="samples", frames_per_epoch=4000)
    video, single = counts(clips, 1)
    assert len(video) / len(single) == pytest.approx(3, rel=0.1)


def test_bucketed_batches_of_mixed_sets_waste_nothing(tiny_pair):
    clips = NormalClips(tiny_pair, length=(1, 3), batch_size=3)
    for batch in Loader(clips):
        assert len({tuple(batch[name].shape[:2]) for name in ("image", "normal", "valid", "frames")}) == 1
    with pytest.raises(CardError, match="single frames need length"):
        NormalFrames(tiny_pair, length=(1, 2))


def test_hugging_face_datasets_reads_the_store_with_our_transform(moving):
    rows = datasets.load_from_disk(str(moving.path)).with_transform(decode_rows)
    for index in (0, 7):
        row, frame = rows[index], moving[index]
        for name in ("normal", "valid", "depth", "flow", "occluded", "intrinsics", "cam_to_world"):
            np.testing.assert_array_equal(row[name], getattr(frame, name))
        np.testing.assert_array_equal(row["image"], decode_image(frame.image))
        assert (row["sequence"], row["frame"]) == (frame.sequence, frame.frame)


def test_pandas(moving):
    table = arrow_table(moving, ["sequence", "frame", "height", "intrinsics"]).to_pandas()
    assert table["frame"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert table.groupby("sequence", sort=False)["height"].first().tolist() == [48, 40]
