"""The miniatures of the training sets: the same bytes each time, frames that a store accepts."""

import hashlib

import pytest

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.readers.base import make_reader
from ncbench.datasets.schema import checked, store_schema, to_batch
from ncbench.errors import CardError
from ncbench.registry import load_attribute

NAMES = ["ken-burns-mini", "matrixcity-mini", "gobjaverse-mini", "objaverse-mini"]


def contents(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_is_reproducible_and_fits_a_store(name, tmp_path):
    card = catalog.load(DatasetCard, name)
    write = load_attribute(card.source.generator)
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        write(tmp_path / place, card.source.settings)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    reader = make_reader(card.reader, tmp_path / "first", card.reader_settings())
    clips = reader.sequences()
    assert 2 <= len(clips) <= 6
    schema = store_schema(reader.extra_features())
    for sequence, frames in clips.items():
        for frame in reader.read(sequence, frames):
            sound = checked(frame)
            assert sound.valid.mean() > 0.05
            assert (frame.flow is None) == (frame.frame == frames[-1])
            assert to_batch(sound, schema).num_rows == 1
        assert reader.fingerprint(sequence, frames) == reader.fingerprint(sequence, frames)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_setting_is_named(name, tmp_path):
    card = catalog.load(DatasetCard, name)
    with pytest.raises(CardError, match="sed"):
        load_attribute(card.source.generator)(tmp_path, card.source.settings | {"sed": 1})
