import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncbench.datasets.frame import Frame
from ncbench.datasets.integrity import verify
from ncbench.datasets.manifest import seal
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import shard_name, write_shard
from ncbench.errors import StoreError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    wall = np.broadcast_to(np.array([0, 0, -1], np.float32), (3, 4, 3))
    frames = [Frame("clip", number, None, wall, np.ones((3, 4), bool)) for number in range(4)]
    records = [
        write_shard(out / shard_name(i, 2), frames[2 * i : 2 * i + 2], store_schema({}), {"rows": 2, "source": ""})
        for i in range(2)
    ]
    seal(out, records, name="n", card_text="", card_digest="", recipe_digest="")
    return out


def test_an_intact_store_has_no_problems(folder):
    assert verify(folder) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_of_any_shard_is_found(folder, data):
    path = folder / shard_name(data.draw(st.integers(0, 1)), 2)
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:at] + bytes([content[at] ^ (1 << data.draw(st.integers(0, 7)))]) + content[at + 1 :])
    try:
        (problem,) = verify(folder)
    finally:
        path.write_bytes(content)
    assert (problem.file, problem.kind) == (path.name, "changed")
    first = 0 if path.name == shard_name(0, 2) else 2
    assert f"rows {first} to {first + 1} ('clip' frames {first} to {first + 1})" in str(problem)


def test_no_manifest(tmp_path):
    with pytest.raises(StoreError, match=r"no manifest.json"):
        verify(tmp_path)
