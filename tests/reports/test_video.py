"""Videos are read back by a decoder; layout is checked pixel by pixel before it is encoded."""

import av
import numpy as np
import pytest
from PIL import Image

from ncbench.errors import ScoreError, StoreError
from ncbench.reports.video import FORMS, Panel, compose, write_video

COLOURS = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]


def plain(colour, height=48, width=64):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


def test_panels_stand_side_by_side_under_their_captions():
    sheet = compose([Panel(name, plain(colour)) for name, colour in zip("abc", COLOURS, strict=True)], 2, 96)
    assert sheet.shape[0] % 2 == 0
    assert sheet.shape[1] % 2 == 0
    assert sheet.shape[1] >= 2 * 128
    runs = [tuple(sheet[60, 40]), tuple(sheet[60, 128 + 60]), tuple(sheet[60 + 96 + 24, 40])]
    assert runs == COLOURS
    assert tuple(sheet[-10, -10]) == (255, 255, 255)  # nothing beside the third
    assert (sheet[:24, :100] < 128).any()  # a caption


def test_a_caption_is_cut_where_it_does_not_fit():
    long, short = (compose([Panel(name, plain(COLOURS[0]))], 1, 48) for name in ("m" * 300, "m"))
    assert long.shape == short.shape
    assert (long[:24] < 200).any(axis=-1).sum() > (short[:24] < 200).any(axis=-1).sum()


@pytest.mark.parametrize("form", FORMS)
def test_a_video_reads_back(tmp_path, form):
    frames = [plain(colour) for colour in COLOURS]
    path = tmp_path / f"clip{form}"
    assert write_video(path, iter(frames), fps=5) == 3
    if form == ".gif":
        with Image.open(path) as picture:
            assert (picture.n_frames, picture.size, picture.info["duration"]) == (3, (64, 48), 200)
            found = []
            for number in range(3):
                picture.seek(number)
                found.append(np.asarray(picture.convert("RGB")))
    else:
        with av.open(str(path)) as container:
            assert float(container.streams.video[0].average_rate) == 5
            found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(found) == 3
    for frame, expected in zip(found, frames, strict=True):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int).mean(axis=(0, 1)) - expected[0, 0]).max() < 6


@pytest.mark.parametrize("form", FORMS)
def test_equal_frames_give_equal_bytes(tmp_path, form):
    paths = [tmp_path / f"{name}{form}" for name in "ab"]
    for path in paths:
        write_video(path, [plain(colour) for colour in COLOURS], fps=5)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_video_of_nothing_or_of_another_kind_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ScoreError, match=r"\.mp4"):
        write_video(tmp_path / "clip.avi", [plain(COLOURS[0])], 5)
    for form in FORMS:
        with pytest.raises(ScoreError, match="at least one frame"):
            write_video(tmp_path / f"clip{form}", [], 5)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_video_leaves_the_old_one(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, [plain(COLOURS[0])], 5)
    before = path.read_bytes()

    def breaking():
        yield plain(COLOURS[1])
        raise StoreError("the disk is full")

    with pytest.raises(StoreError):
        write_video(path, breaking(), 5)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]
