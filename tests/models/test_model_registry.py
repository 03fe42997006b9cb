"""The contract between a model and the runner is checked at the door."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.base import Clip, NormalModel
from ncbench.models.registry import LoadedModel, load_adapter, load_model

CARD = {
    "name": "m",
    "version": "1.0.0",
    "title": "",
    "summary": "",
    "kind": "image",
    "adapter": "a:b",
    "axes": "opengl",
}
CLIP = Clip("s", (0, 1), np.zeros((2, 4, 5, 3), np.uint8))


class Answer(NormalModel):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.value = settings["value"]

    def predict(self, clip: Clip) -> np.ndarray:
        return self.value


def model_of(value, card=None):
    return LoadedModel(ModelCard.parse(CARD | (card or {}), "card"), Answer({"value": value}))


def test_axes_are_converted_and_vectors_made_unit():
    value = np.zeros((2, 4, 5, 3), np.float32)
    value[..., 1], value[..., 2] = -3.0, 4.0  # OpenGL: down and towards the viewer
    value[0, 0, 0] = 0
    value[0, 0, 1] = np.nan
    value[0, 0, 2] = (np.inf, 0, 0)
    answer = model_of(value).predict(CLIP)
    np.testing.assert_allclose(answer[1, 2, 2], [0, 0.6, -0.8], atol=1e-7)
    assert not answer[0, 0, :3].any()
    assert answer.dtype == np.float32


def test_huge_and_tiny_vectors_keep_their_direction():
    value = np.full((2, 4, 5, 3), -1e-30, np.float32)
    value[1] = -1e30
    answer = model_of(value, {"axes": "opencv"}).predict(CLIP)
    np.testing.assert_allclose(answer, -1 / np.sqrt(3), atol=1e-6)


def test_colours_are_not_taken_for_vectors():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(2, 4, 5, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    for colours in (normal * 0.5 + 0.5, (normal * 0.5 + 0.5) * 255):
        with pytest.raises(ModelError, match="look like colours"):
            model_of(colours.astype(np.float32)).predict(CLIP)
    model_of(normal).predict(CLIP)
    upward = np.zeros((2, 4, 5, 3), np.float32)
    upward[..., 1] = 1
    model_of(upward).predict(CLIP)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((2, 4, 5, 3), np.uint8), "got an array of uint8"),
        (None, "got a NoneType"),
        ([[1.0]], "got a list"),
    ],
)
def test_an_answer_of_another_kind_is_refused(value, words):
    with pytest.raises(ModelError, match=words):
        model_of(value).predict(CLIP)


def test_an_error_of_the_model_names_model_sequence_and_frame():
    class Broken(Answer):
        def predict(self, clip):
            raise ZeroDivisionError("oops")

    model = LoadedModel(ModelCard.parse(CARD, "card"), Broken({"value": 0}))
    with pytest.raises(ModelError, match="'s', frame 0 on: the model failed with ZeroDivisionError"):
        model.predict(CLIP)


class Unmakeable(Answer):
    def __init__(self, settings):
        raise OSError("no weights here")


class Motionless(Answer):
    clip_length = 0

    def __init__(self, settings):
        self.value = 0


@pytest.mark.parametrize(("name", "words"), [("Unmakeable", "no weights here"), ("Motionless", "clip_length")])
def test_a_model_that_cannot_be_made_says_why(name, words, monkeypatch):
    monkeypatch.setattr("ncbench.models.registry.load_attribute", lambda _: globals()[name])
    with pytest.raises(ModelError, match=words):
        load_adapter(ModelCard.parse(CARD, "card"))


def test_a_wrong_shape_names_model_sequence_and_shapes():
    with pytest.raises(ModelError, match=r"model 'm', sequence 's', frame 0 on: .*\(2, 4, 5, 3\).*\(2, 3, 4, 5\)"):
        model_of(np.zeros((2, 3, 4, 5), np.float32)).predict(CLIP)


def test_unanswered_and_surplus_clips_are_errors():
    class Silent(Answer):
        def stream(self, clips):
            list(clips)
            return iter(())

    class Chatty(Answer):
        def stream(self, clips):
            for _ in clips:
                yield self.value
                yield self.value

    value = -np.ones((2, 4, 5, 3), np.float32)
    card = ModelCard.parse(CARD, "card")
    with pytest.raises(ModelError, match="unanswered"):
        list(LoadedModel(card, Silent({"value": value})).stream([CLIP]))
    with pytest.raises(ModelError, match="more clips"):
        list(LoadedModel(card, Chatty({"value": value})).stream([CLIP]))


def test_a_model_that_needs_something_says_so():
    class Needy(Answer):
        needs_intrinsics = True

    class Control(Answer):
        needs_truth = True

    value = np.ones((2, 4, 5, 3), np.float32)
    card = ModelCard.parse(CARD, "card")
    with pytest.raises(ModelError, match="needs intrinsics"):
        LoadedModel(card, Needy({"value": value})).predict(CLIP)
    with pytest.raises(ModelError, match="reads the ground truth"):
        LoadedModel(card, Control({"value": value})).predict(CLIP)


def test_code_that_is_no_model_is_refused():
    with pytest.raises(CardError, match="not a subclass"):
        load_adapter(ModelCard.parse(CARD | {"adapter": "math:sqrt"}, "card"))


def test_shipped_models_load_by_name():
    assert load_model("frontal").card.axes == "opencv"
