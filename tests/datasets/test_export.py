"""Exports are read back by others' readers, or by decoders written here from the published descriptions."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ncbench.cards import DatasetCard
from ncbench.datasets.export import export
from ncbench.datasets.export_encode import encode_normals, encode_numbers, picture_suffix
from ncbench.datasets.frame import Frame
from ncbench.datasets.manifest import seal
from ncbench.datasets.prepare import prepare
from ncbench.datasets.readers.folder import FolderReader
from ncbench.datasets.recipe import recipe_for
from ncbench.datasets.schema import store_schema
from ncbench.datasets.shards import write_shard
from ncbench.datasets.store import open_store
from ncbench.errors import CardError, StoreError

# x, y, z of a convention in OpenCV's: what a vector must be multiplied with, as the conventions are described
SIGNS = {"opencv": (1, 1, 1), "opengl": (1, -1, -1), "dsine": (-1, -1, -1), "ldf": (-1, 1, 1)}
# the worst angle of rounding each component by half a step: |step / 2| * sqrt(3), for a unit vector
BOUND = {"png8": np.degrees(np.sqrt(3) / 255), "png16": np.degrees(np.sqrt(3) / 65535), "npy": 1e-4, "exr": 1e-4}
FORMS = ("folder", "dsine_eval", "marigold", "webdataset", "parquet")


@pytest.fixture
def store(tiny_data):
    return tiny_data / "data" / "stores" / "tiny"


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def angle(a, b, valid):
    a, b = a.astype(np.float64)[valid], b.astype(np.float64)[valid]
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def unit(values):
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def make_store(folder, frames):
    folder.mkdir()
    name = "data-00000-of-00001.arrow"
    record = write_shard(folder / name, frames, store_schema({}), {"source": "s", "rows": len(frames)})
    seal(folder, [record], name="made", card_text="", card_digest="", recipe_digest="")
    return folder


def plain(sequence="a", frame=0, **changes):
    normal = np.zeros((4, 6, 3), np.float32)
    normal[..., 2] = -1
    return Frame(
        **{
            "sequence": sequence,
            "frame": frame,
            "image": None,
            "normal": normal,
            "valid": np.ones((4, 6), bool),
            **changes,
        }
    )


@pytest.mark.parametrize("axes", SIGNS)
@pytest.mark.parametrize("dtype", BOUND)
def test_a_folder_comes_back_through_the_folder_reader(store, tmp_path, axes, dtype):
    out = export(store, tmp_path / "out", "folder", axes=axes, dtype=dtype)
    values = yaml.safe_load((out / "dataset.yaml").read_text())
    assert values["axes"] == axes
    reader = FolderReader(out, values["settings"] | {"axes": axes})
    original = open_store(store)
    assert {name: list(frames) for name, frames in reader.sequences().items()} == original.sequences
    worst = 0.0
    for name, frames in original.sequences.items():
        for frame in reader.read(name, frames):
            truth = original.read(name, frame.frame)
            np.testing.assert_array_equal(frame.valid, truth.valid)
            worst = max(worst, angle(frame.normal, truth.normal, truth.valid).max(initial=0))
            assert frame.image == truth.image
            np.testing.assert_array_equal(frame.depth, truth.depth)
            np.testing.assert_array_equal(frame.intrinsics, truth.intrinsics)
            np.testing.assert_array_equal(frame.cam_to_world, truth.cam_to_world)
            assert (frame.flow is None) == (truth.flow is None)
            if truth.flow is not None:
                np.testing.assert_array_equal(frame.flow, truth.flow)
    assert worst < BOUND[dtype]


def test_the_card_beside_a_folder_prepares_it_again(store, tmp_path):
    out = export(store, tmp_path / "out", dtype="exr", axes="dsine")
    card = DatasetCard.parse(yaml.safe_load((out / "dataset.yaml").read_text()), "exported")
    prepare(recipe_for(card, out), tmp_path / "again")
    one, two = open_store(store), open_store(tmp_path / "again")
    assert one.sequences == two.sequences
    for row in range(len(one)):
        np.testing.assert_array_equal(one[row].normal, two[row].normal)
        np.testing.assert_array_equal(one[row].valid, two[row].valid)


@pytest.mark.parametrize(("dtype", "highest"), [("png8", 255), ("png16", 65535), ("exr", None)])
def test_dsine_eval_decodes_as_dsine_does(store, tmp_path, dtype, highest):
    """Decoding and masks as published: sum of channels > 0 for PNG, norm > 0.5 for EXR; axes left-up-back."""
    import cv2
    import OpenEXR

    out = export(store, tmp_path / "out", "dsine_eval", dtype=dtype)
    original = open_store(store)
    lines = (out / "split.txt").read_text().split("\n")
    assert len(lines) == len(original)
    for line, row in zip(lines, range(len(original)), strict=True):
        truth = original[row]
        scene, picture = line.split("/")
        name, ending = picture.split("_img")
        assert (scene, int(name)) == (truth.sequence, truth.frame)
        assert (out / line).read_bytes() == truth.image
        base = out / line.replace("_img" + ending, "")
        if highest is None:
            with OpenEXR.File(f"{base}_normal.exr") as file:
                normal = file.channels()["RGB"].pixels
            mask = np.linalg.norm(normal, axis=2) > 0.5
        else:
            stored = cv2.imread(f"{base}_normal.png", cv2.IMREAD_UNCHANGED)[..., ::-1]
            assert np.iinfo(stored.dtype).max == highest
            mask = stored.astype(np.int64).sum(axis=2) > 0
            normal = stored.astype(np.float32) / highest * 2 - 1
        np.testing.assert_array_equal(mask, truth.valid)
        assert angle(-unit(normal), truth.normal, mask).max() < BOUND[dtype]
        np.testing.assert_array_equal(np.load(f"{base}_intrins.npy"), truth.intrinsics)


def test_marigold_decodes_as_marigold_does(store, tmp_path):
    """A list of picture and normals, separated by blanks; NPY (H, W, 3) in right-up-back axes; mask |n| > 0."""
    out = export(store, tmp_path / "out", "marigold")
    original = open_store(store)
    with (out / "filename_list.txt").open() as stream:
        names = [line.split() for line in stream]
    for (picture, normals), row in zip(names, range(len(original)), strict=True):
        truth = original[row]
        assert np.asarray(Image.open(out / picture)).shape == (*truth.size, 3)
        normal = np.transpose(np.load(out / normals), (2, 0, 1))
        assert normal.dtype == np.float32
        mask = np.linalg.norm(normal, axis=0) > 0
        np.testing.assert_array_equal(mask, truth.valid)
        np.testing.assert_array_equal(normal[0], truth.normal[..., 0])
        np.testing.assert_array_equal(normal[1:], -truth.normal.transpose(2, 0, 1)[1:])


@pytest.mark.parametrize("dtype", ["npy", "png8"])
def test_webdataset_reads_it(store, tmp_path, dtype):
    webdataset = pytest.importorskip("webdataset")
    out = export(store, tmp_path / "out", "webdataset", axes="opengl", dtype=dtype)
    urls = sorted(str(path) for path in out.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    original = open_store(store)
    assert len(samples) == len(original)
    for sample, row in zip(samples, range(len(original)), strict=True):
        truth = original[row]
        assert sample["__key__"] == f"{truth.sequence}/{truth.frame:06d}"
        assert sample["json"]["axes"] == "opengl"
        assert (sample["json"]["sequence"], sample["json"]["frame"]) == (truth.sequence, truth.frame)
        np.testing.assert_array_equal(np.reshape(sample["json"]["intrinsics"], (3, 3)), truth.intrinsics)
        np.testing.assert_array_equal(np.reshape(sample["json"]["cam_to_world"], (4, 4)), truth.cam_to_world)
        np.testing.assert_array_equal(sample["valid.png"][..., 0] > 0, truth.valid)
        np.testing.assert_array_equal(sample["depth.npy"], truth.depth)
        np.testing.assert_array_equal(sample["png"], np.array(Image.open(io.BytesIO(truth.image))))
        assert ("flow.npy" in sample) == (truth.flow is not None)
        normal = sample["normal.npy"] if dtype == "npy" else sample["normal.png"] / 255 * 2 - 1
        assert angle(unit(normal) * SIGNS["opengl"], truth.normal, truth.valid).max() < BOUND[dtype]


@pytest.mark.parametrize("dtype", ["png8", "png16", "npy"])
def test_parquet_reads_back_with_datasets_alone(store, tmp_path, dtype):
    import cv2
    from datasets import load_dataset

    out = export(store, tmp_path / "out", "parquet", axes="dsine", dtype=dtype)
    paths = sorted(str(path) for path in out.glob("*.parquet"))
    data = load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path / "cache"))
    original = open_store(store)
    assert len(data) == len(original)
    for row in range(len(original)):
        found, truth = data[row], original[row]
        assert (found["sequence"], found["frame"]) == (truth.sequence, truth.frame)
        assert (found["height"], found["width"]) == truth.size
        np.testing.assert_array_equal(np.array(found["image"]), np.array(Image.open(io.BytesIO(truth.image))))
        if dtype == "png8":
            normal = np.array(found["normal"]) / 255 * 2 - 1
        elif dtype == "png16":
            stored = cv2.imdecode(np.frombuffer(found["normal"], np.uint8), cv2.IMREAD_UNCHANGED)
            normal = stored[..., ::-1] / 65535 * 2 - 1
        else:
            normal = np.load(io.BytesIO(found["normal"]))
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(found["valid"]))) > 0, truth.valid)
        assert angle(-unit(normal), truth.normal, truth.valid).max() < BOUND[dtype]
        np.testing.assert_array_equal(np.load(io.BytesIO(found["depth"])), truth.depth)
        assert (found["flow"] is None) == (truth.flow is None)
        np.testing.assert_array_equal(found["intrinsics"], truth.intrinsics.ravel())


@pytest.mark.parametrize("form", FORMS)
def test_interrupted_and_run_again_gives_the_same_as_undisturbed(store, tmp_path, form):
    class InterruptError(Exception):
        pass

    def interrupt(done, total):
        assert total == 2
        raise InterruptError

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    export(store, whole, form)
    with pytest.raises(InterruptError):
        export(store, broken, form, progress=interrupt)
    assert not (broken / "export.json").exists()
    (first,) = (path for path in broken.iterdir() if not path.name.startswith("."))
    stamp = first.stat().st_mtime_ns
    (broken / f".two.1234{'.ncbench-tmp'}").write_text("left by a killed run")
    seen = []
    export(store, broken, form, progress=lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    assert first.stat().st_mtime_ns == stamp
    assert files(broken) == files(whole)
    before = {path: path.stat().st_mtime_ns for path in broken.rglob("*")}
    export(store, broken, form)
    assert {path: path.stat().st_mtime_ns for path in broken.rglob("*")} == before


def test_a_sequence_that_fails_leaves_no_half(tmp_path):
    frames = [plain("a", intrinsics=np.eye(3), image=picture()), plain("b", intrinsics=None, image=picture())]
    store = make_store(tmp_path / "store", frames)
    with pytest.raises(StoreError, match=r"sequence 'b' frame 0: this form needs intrinsics"):
        export(store, tmp_path / "out", "dsine_eval")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", ".ncbench-export"}
    assert len((export(store, tmp_path / "one", "dsine_eval", sequences=["a"]) / "split.txt").read_text()) > 0


def picture(kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def test_two_workers_write_the_same_bytes(store, tmp_path):
    assert files(export(store, tmp_path / "two", jobs=2)) == files(export(store, tmp_path / "one"))


def test_frames_that_lack_columns(tmp_path):
    flow = np.zeros((4, 6, 2), np.float32)
    frames = [
        plain("a", 0, image=picture("JPEG"), flow=flow, occluded=np.eye(4, 6) > 0, depth=np.ones((4, 6), np.float32)),
        plain("a", 3, image=picture("JPEG"), valid=np.zeros((4, 6), bool)),
    ]
    store = make_store(tmp_path / "store", frames)
    out = export(store, tmp_path / "out")
    settings = yaml.safe_load((out / "dataset.yaml").read_text())["settings"]
    assert settings == {
        "image": "{sequence}/image/{frame}.jpg",
        "normal": "{sequence}/normal/{frame}.png",
        "flow": "{sequence}/flow/{frame}.npy",
    }
    np.testing.assert_array_equal(np.array(Image.open(out / "a" / "occluded" / "000000.png")), 255 * np.eye(4, 6))
    back = {frame.frame: frame for frame in FolderReader(out, settings | {"axes": "opencv"}).read("a", [0, 3])}
    assert back[0].valid.all()
    assert not back[3].valid.any()
    pictureless = make_store(tmp_path / "pictureless", [plain()])
    assert not (export(pictureless, tmp_path / "none") / "dataset.yaml").exists()
    for form in ("webdataset", "parquet"):
        export(pictureless, tmp_path / form, form)
    with pytest.raises(StoreError, match="needs picture"):
        export(pictureless, tmp_path / "marigold", "marigold")


def test_names_become_safe_and_never_collide(tmp_path):
    store = make_store(tmp_path / "store", [plain("../up me"), plain(".b")])
    out = export(store, tmp_path / "out")
    receipt = json.loads((out / "export.json").read_text())
    assert receipt["files"] == {"../up me": "_._up_me", ".b": "_b"}
    assert all(path.resolve().is_relative_to(out.resolve()) for path in out.rglob("*"))
    clash = make_store(tmp_path / "clash", [plain("a b"), plain("a_b")])
    with pytest.raises(CardError, match="'a b' and 'a_b' both become 'a_b'"):
        export(clash, tmp_path / "no")
    export(clash, tmp_path / "one", sequences=["a b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "dsine"}, r"unknown form 'dsine'.*dsine_eval"),
        ({"axes": "openg"}, "Did you mean 'opengl'"),
        ({"form": "dsine_eval", "axes": "opengl"}, "expect dsine axes"),
        ({"form": "marigold", "dtype": "png8"}, "does not hold normals as 'png8'"),
        ({"dtype": "jpg"}, "png16"),
        ({"sequences": ["on"]}, "Did you mean 'one'"),
    ],
)
def test_bad_arguments_write_nothing(store, tmp_path, arguments, message):
    with pytest.raises(CardError, match=message):
        export(store, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(store, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="found other files"):
        export(store, tmp_path)
    out = export(store, tmp_path / "out")
    before = files(out)
    with pytest.raises(StoreError, match="found another export"):
        export(store, out, axes="dsine")
    assert files(out) == before
    with pytest.raises(StoreError):
        export(tmp_path / "nothing", tmp_path / "x")


def test_tars_hold_no_time_and_no_owner(store, tmp_path):
    out = export(store, tmp_path / "out", "webdataset")
    with tarfile.open(out / "one.tar") as archive:
        entries = archive.getmembers()
    assert {(entry.mtime, entry.uid, entry.uname, entry.mode) for entry in entries} == {(0, 0, "", 0o644)}
    assert [entry.name for entry in entries if entry.name.endswith("json")] == [f"one/00000{i}.json" for i in range(3)]


def test_known_vectors_in_png8():
    normal = np.array([[[0, 0, -1], [1, 0, 0], [0, 0, 0]]], np.float32)
    valid = np.array([[True, True, False]])
    decoded = np.array(Image.open(io.BytesIO(encode_normals(normal, valid, "opengl", "png8"))))
    assert decoded.tolist() == [[[128, 128, 255], [255, 128, 128], [0, 0, 0]]]
    array = np.load(io.BytesIO(encode_normals(normal, valid, "ldf", "npy")))
    assert array.tolist() == [[[0, 0, -1], [-1, 0, 0], [0, 0, 0]]]
    assert not np.signbit(array[array == 0]).any()


def test_numbers_are_written_exactly():
    values = np.random.default_rng(1).normal(size=(4, 4)) * 1e3
    np.testing.assert_array_equal(np.loadtxt(io.BytesIO(encode_numbers(values))), values)


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_suffix_of_a_picture(kind, suffix):
    assert picture_suffix(picture(kind)) == suffix
    with pytest.raises(StoreError):
        picture_suffix(b"none")


def test_paths_of_this_machine_do_not_leak(store, tmp_path):
    for form in FORMS:
        for name, content in files(export(store, tmp_path / form, form)).items():
            assert str(Path(tmp_path)).encode() not in content, name
