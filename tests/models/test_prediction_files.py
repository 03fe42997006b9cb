"""A plain folder of predictions: usual names are found, everything else is explained."""

import pytest

from ncbench.errors import ModelError
from ncbench.models.predictions import PredictionFiles


def files(root, **settings):
    return PredictionFiles(root=root, **settings)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")


@pytest.mark.parametrize(
    "name",
    [
        "alley_1/000007.npy",
        "alley_1/normal/000007.png",
        "alley_1/000007_normal.exr",
        "alley_1/frame_0007.png",
        "alley_1/7.npz",
        "alley_1_000007.npy",
    ],
)
def test_usual_names_are_found(tmp_path, name):
    touch(tmp_path, name)
    assert files(tmp_path).path("alley_1", 7) == tmp_path / name


def test_frames_that_count_from_one(tmp_path):
    touch(tmp_path, "alley_1/frame_0001.png", "alley_1/frame_0002.png")
    assert files(tmp_path, frame_offset=1).path("alley_1", 1).name == "frame_0002.png"


def test_two_candidates_are_a_question_not_a_guess(tmp_path):
    touch(tmp_path, "a/000001.npy", "a/000001.png")
    with pytest.raises(ModelError, match=r"several files: a/000001.npy, a/000001.png. Set 'pattern'"):
        files(tmp_path).path("a", 1)
    assert files(tmp_path, pattern="{sequence}/{frame:06d}.png").path("a", 1).suffix == ".png"


def test_what_is_there_is_shown(tmp_path):
    touch(tmp_path, "a/x1.png", "a/x2.png")
    with pytest.raises(
        ModelError, match=r"frame 1: looked for a/000001.npy .* holds a/x1.png, a/x2.png. Set 'pattern'"
    ):
        files(tmp_path).path("a", 1)
    with pytest.raises(ModelError, match=r"pattern '\{scene\}.png' is unusable"):
        files(tmp_path, pattern="{scene}.png").path("a", 1)
    with pytest.raises(ModelError, match=r"expected the folder of predictions, found none"):
        files(tmp_path / "none").check()
