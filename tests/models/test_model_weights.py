"""Weights: the pinned files and no others, from the Hub or a folder; tensors that fit or an error that names them."""

import hashlib
import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ncbench.cards import ModelCard
from ncbench.errors import CardError, ModelError
from ncbench.models.weights import fill, find_weights, missing_weights, read_tensors, require_complete

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {"model_index.json": b"{}", "unet/net.safetensors": b"tensors", "unet/other.bin": b"not named by the card"}
NAMED = ("model_index.json", "unet/net.safetensors")


def sha(content):
    return hashlib.sha256(content).hexdigest()


def card(files=None, **changes):
    weights = {
        "repository": "owner/repo",
        "revision": COMMIT,
        "files": files or {name: sha(CONTENT[name]) for name in NAMED},
        "licence": {"name": "MIT", "redistribution": True},
    } | changes
    values = {"name": "m", "version": "1.0.0", "title": "", "summary": "", "kind": "image", "adapter": "a:b"}
    return ModelCard.parse(values | {"axes": "opencv", "weights": weights}, "card")


def lay_out(folder):
    for name in NAMED:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT[name])
    return folder


@pytest.mark.parametrize("where", ["", "m", "owner/repo"])
def test_a_folder_of_ones_own_is_found_and_hashed(tmp_path, where):
    root = lay_out(tmp_path / where)
    found = find_weights(card({NAMED[0]: None, NAMED[1]: sha(b"tensors")}), tmp_path)
    assert found.folder == root
    assert found.record() == {"revision": COMMIT, "sha256": {name: sha(CONTENT[name]) for name in NAMED}}
    assert missing_weights(card(), tmp_path) == []


def test_a_missing_and_an_altered_file_are_named_with_where_to_get_them(tmp_path):
    lay_out(tmp_path)
    (tmp_path / NAMED[1]).write_bytes(b"tensorz")
    with pytest.raises(ModelError, match=rf"net.safetensors: .*expects sha256 {sha(b'tensors')}.*huggingface.co/owner"):
        find_weights(card(), tmp_path)
    (tmp_path / NAMED[1]).unlink()
    with pytest.raises(ModelError, match=rf"unet/net.safetensors is missing. Get them from .*owner/repo/tree/{COMMIT}"):
        find_weights(card(), tmp_path)
    assert missing_weights(card(), tmp_path) == [NAMED[1]]


def test_weights_from_elsewhere_need_a_folder():
    given = card(host="elsewhere", homepage="https://example.org/weights")
    with pytest.raises(ModelError, match=r"not on the Hugging Face Hub.*example.org/weights.*--weights"):
        find_weights(given)
    assert missing_weights(given) == list(NAMED)


@pytest.mark.parametrize("name", ["../x.bin", "/x.bin", "a/../../x.bin", ".hidden", "a//b"])
def test_a_card_cannot_reach_out_of_its_folder(name):
    with pytest.raises(CardError, match="weights.files"):
        card({name: None})


def test_a_card_must_pin_a_sha256_or_say_none():
    with pytest.raises(CardError, match="weights.files"):
        card({"x.bin": "abc"})


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a download of one file takes."""

    asked: list[str]

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        self.server.asked.append(f"{self.command} {self.path}")
        name = self.path.removeprefix(f"/owner/repo/resolve/{COMMIT}/")
        content = CONTENT.get(name)
        self.send_response(200 if content else 404)
        if content:
            self.send_header("ETag", f'"{sha(content)}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if with_body and content:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path):
    """Asks ``find_weights`` in a process of its own, since the Hub's address is read when its library is imported."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import json, sys\nfrom ncbench.cards import ModelCard\nfrom ncbench.errors import ModelError\n"
        "from ncbench.models.weights import find_weights, missing_weights\n"
        "card = ModelCard.parse(json.loads(sys.argv[1]), 'card')\n"
        "try:\n    found = find_weights(card)\n"
        "    print(json.dumps([str(found.folder), found.record(), missing_weights(card)]))\n"
        "except ModelError as error:\n    print(json.dumps(str(error)))\n"
    )

    def ask(model, **more):
        env = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf")}
        env |= {"HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"} | more
        values = json.dumps(model.model_dump(mode="json"))
        done = subprocess.run([sys.executable, "-c", code, values], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield ask, server
    server.shutdown()
    server.server_close()


def test_the_hub_gives_the_named_files_of_the_pinned_commit_alone_and_once(hub):
    ask, server = hub
    folder, record, missing = ask(card())
    assert record == {"revision": COMMIT, "sha256": {name: sha(CONTENT[name]) for name in NAMED}}
    assert missing == []
    assert not [path for path in server.asked if "other.bin" in path]
    assert (Path(folder) / "unet" / "net.safetensors").read_bytes() == b"tensors"
    before = len(server.asked)
    assert ask(card(), HF_HUB_OFFLINE="1")[0] == folder
    assert len(server.asked) == before
    with_another = card({**dict.fromkeys(NAMED), "gone.bin": None})
    error = ask(with_another)
    assert "gone.bin of owner/repo" in error
    assert "--weights" in error


def test_offline_without_a_copy_says_what_to_do(hub):
    ask, server = hub
    error = ask(card(), HF_HUB_OFFLINE="1")
    assert "model_index.json of owner/repo at revision" in error
    assert "--weights" in error
    assert server.asked == []


def net():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".ckpt"])
def test_tensors_come_back_from_each_format(tmp_path, ending):
    state = net().state_dict()
    path = tmp_path / f"net{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if ending == ".ckpt" else state, path)
    other = net()
    fill(other, read_tensors(path), path)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('weights ran code')",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"a": Evil()}, path)
    with pytest.raises(ModelError, match="net.pt: holds more than tensors"):
        read_tensors(path)
    path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=2))
    with pytest.raises(ModelError, match="net.pt"):
        read_tensors(path)
    torch.save({"a": torch.zeros(1), "epoch": 3}, path)
    with pytest.raises(ModelError, match="expected a mapping of names to tensors"):
        read_tensors(path)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_cut_file_is_named(tmp_path, ending):
    path = tmp_path / f"net{ending}"
    save_file(net().state_dict(), path) if ending == ".safetensors" else torch.save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match=f"net{ending}"):
        read_tensors(path)
    with pytest.raises(ModelError, match="none"):
        read_tensors(tmp_path / f"none{ending}")


def test_missing_misnamed_and_misshaped_tensors_are_named():
    state = net().state_dict()
    state["0.wieght"] = state.pop("0.weight")
    state["1.bias"] = torch.zeros(7)
    with pytest.raises(ModelError) as caught:
        fill(net(), state, "here")
    text = str(caught.value)
    assert "1 tensors are missing: 0.weight" in text
    assert "1 are unknown: 0.wieght" in text
    assert "Did you mean '0.weight'" in text
    assert "1.bias of (7,) for (1,)" in text


def test_what_diffusers_only_warns_of_is_an_error():
    require_complete({"missing_keys": [], "unexpected_keys": set(), "mismatched_keys": []}, "here")
    with pytest.raises(ModelError, match="conv.weight of"):
        require_complete({"mismatched_keys": [("conv.weight", (1, 2), (1, 3))]}, "here")
