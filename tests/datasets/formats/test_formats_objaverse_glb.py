"""GLB files: known objects read exactly; hostile and broken ones end in one kind of error."""

import io
import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ncbench.datasets.formats.objaverse_glb import read_glb
from ncbench.datasets.mini.layout_objaverse import make_glb
from ncbench.errors import SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "objaverse_like_glb"
MOST = 100_000


def pack(tree, binary=b""):
    """A GLB of a JSON tree and a binary chunk."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I", len(text)) + b"JSON" + text
    if binary:
        chunks += struct.pack("<I", len(binary)) + b"BIN\0" + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def split(content):
    length = struct.unpack("<I", content[12:16])[0]
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def write(path, content):
    path = path / "object.glb"
    path.write_bytes(content)
    return path


def triangle(transform):
    """One triangle with three vertex normals under a node's transform."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    normals = np.array([[0, 0, 1], [0.6, 0, 0.8], [0, 0.6, 0.8]], dtype=np.float32)
    faces = np.array([0, 1, 2], dtype=np.uint32)
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "matrix": np.asarray(transform).T.ravel().tolist()}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 2, "componentType": 5125, "count": 3, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 36},
            {"buffer": 0, "byteOffset": 36, "byteLength": 36},
            {"buffer": 0, "byteOffset": 72, "byteLength": 12},
        ],
        "buffers": [{"byteLength": 84}],
    }
    return tree, corners.tobytes() + normals.tobytes() + faces.tobytes(), corners, normals


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_normals_follow_a_stretch_by_the_inverse_transpose(mirror, tmp_path):
    linear = np.array([[2.0, 0.3, 0.0], [0.0, 0.5, 0.1], [0.2, 0.0, mirror]])
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = linear, [1, 2, 3]
    tree, binary, corners, normals = triangle(transform)
    mesh = read_glb(write(tmp_path, pack(tree, binary)), MOST)
    np.testing.assert_allclose(mesh.vertices[mesh.faces[0]], corners @ linear.T + [1, 2, 3], atol=1e-6)
    expected = normals @ np.linalg.inv(linear) * np.sign(np.linalg.det(linear))
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(mesh.normals[mesh.faces[0]], expected, atol=1e-6)
    assert mesh.surfaces[0].texture is None


@pytest.mark.parametrize("shape", ["box", "ball", "tower", "lattice"])
def test_generated_objects_read_and_are_the_same_each_time(shape, tmp_path):
    content = make_glb(shape, [1, 2])
    assert content == make_glb(shape, [1, 2])
    mesh = read_glb(write(tmp_path, content), MOST)
    assert len(mesh.surfaces) == (3 if shape == "tower" else 1)
    assert (mesh.surfaces[0].texture is not None) == (shape in ("box", "lattice"))
    assert (mesh.surfaces[0].opacity is not None) == (shape == "lattice")
    assert (mesh.surfaces[0].vertex_colour is not None) == (shape == "ball")
    if shape == "ball":
        unit = mesh.vertices / np.linalg.norm(mesh.vertices, axis=-1, keepdims=True)
        assert np.degrees(np.arccos((unit * mesh.normals).sum(axis=-1)).max()) < 1
    with pytest.raises(SourceError, match="expected 1 to 5 triangles, found|claims"):
        read_glb(tmp_path / "object.glb", 5)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real samples are not here")
@pytest.mark.parametrize(("name", "faces", "parts"), [("BoxTextured", 12, 1), ("CesiumMilkTruck", 3624, 5)])
def test_real_objects_read(name, faces, parts):
    mesh = read_glb(REAL / f"{name}.glb", MOST)
    assert (len(mesh.faces), len(mesh.surfaces)) == (faces, parts)
    scene = trimesh.load_scene(REAL / f"{name}.glb")
    np.testing.assert_allclose([mesh.vertices.min(0), mesh.vertices.max(0)], scene.bounds, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=-1), 1, atol=1e-6)
    assert mesh.surfaces[0].texture is not None


def painted(rgba, mode, factor=None, **extra):
    """A triangle with a texture of one pixel, its alpha mode and its base colour."""
    tree, binary, _, _ = triangle(np.eye(4))
    out = io.BytesIO()
    Image.new("RGBA" if len(rgba) == 4 else "RGB", (1, 1), tuple(rgba)).save(out, "PNG")
    tree["bufferViews"] += [{"buffer": 0, "byteOffset": len(binary), "byteLength": 24}]
    tree["accessors"].append({"bufferView": 3, "componentType": 5126, "count": 3, "type": "VEC2"})
    tree["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = 3
    binary += np.zeros((3, 2), np.float32).tobytes()
    tree["bufferViews"] += [{"buffer": 0, "byteOffset": len(binary), "byteLength": len(out.getvalue())}]
    binary += out.getvalue() + bytes(-len(out.getvalue()) % 4)
    tree["buffers"][0]["byteLength"] = len(binary)
    tree |= {"images": [{"bufferView": 4, "mimeType": "image/png"}], "textures": [{"source": 0}]}
    looks = {"baseColorTexture": {"index": 0}} | ({"baseColorFactor": factor} if factor else {})
    tree["materials"] = [{"pbrMetallicRoughness": looks, **({"alphaMode": mode} if mode else {}), **extra}]
    tree["meshes"][0]["primitives"][0]["material"] = 0
    return pack(tree, binary)


@pytest.mark.parametrize(
    ("content", "cutoff", "alpha"),
    [
        (painted([9, 9, 9, 100], "MASK"), 0.5, 100 / 255),
        (painted([9, 9, 9, 100], "MASK", alphaCutoff=0.7), 0.7, 100 / 255),
        (painted([9, 9, 9, 200], "MASK", [1, 1, 1, 0.5]), 0.5, 200 / 255 * 0.5),
        (painted([9, 9, 9, 100], "BLEND"), 0.25, None),
        (painted([9, 9, 9, 50], "BLEND"), 0.25, 50 / 255),
        (painted([9, 9, 9], "BLEND", [1, 1, 1, 0.1]), 0.25, 0.1),
        (painted([9, 9, 9, 0], "OPAQUE"), None, None),  # its alpha means nothing
        (painted([9, 9, 9, 0], None), None, None),
        (painted([9, 9, 9], "MASK"), 0.5, None),
    ],
)
def test_alpha_modes(content, cutoff, alpha, tmp_path):
    (surface,) = read_glb(write(tmp_path, content), MOST, 0.25).surfaces
    np.testing.assert_array_equal(surface.texture, [[[9, 9, 9]]])
    if alpha is None:
        assert surface.opacity is None
    else:
        assert surface.opacity.cutoff == pytest.approx(cutoff)
        assert surface.opacity.texture[0, 0] / 255 * surface.opacity.factor == pytest.approx(alpha, abs=0.003)


@pytest.mark.parametrize("name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression"])
def test_compressed_meshes_are_named(name, tmp_path):
    tree, binary, _, _ = triangle(np.eye(4))
    tree |= {"extensionsUsed": [name]}
    assert len(read_glb(write(tmp_path, pack(tree, binary)), MOST).faces) == 1  # plain data lie beside
    required = pack(tree | {"extensionsRequired": [name]}, binary)
    primitive = tree["meshes"][0]["primitives"][0]
    primitive["extensions"] = {name: {"bufferView": 0, "attributes": {"POSITION": 0}}}
    del tree["accessors"][0]["bufferView"]
    for content in (required, pack(tree, binary)):
        with pytest.raises(SourceError, match=rf"object\.glb: expected plain meshes, .*\({name}\)\. Unpack"):
            read_glb(write(tmp_path, content), MOST)


def broken(change):
    tree, binary, _, _ = triangle(np.eye(4))
    change(tree)
    return pack(tree, binary)


HOSTILE = {
    "elements, more than": lambda t: t["accessors"][0].update(count=10**12, bufferView=None),
    "two parents": lambda t: t["nodes"].extend([{"children": [0]}, {"children": [0]}]),
    "round in a circle": lambda t: t["nodes"].extend([{"children": [2]}, {"children": [1]}]),
    "does not exist": lambda t: t["nodes"][0].update(children=[99]),
    "does not parse|triangles": lambda t: t["meshes"][0]["primitives"][0].update(indices=77),
    "does not parse|consistent": lambda t: t.update(accessors="none"),
    "triangles, found 0|does not parse": lambda t: t.update(meshes=[], nodes=[{}]),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_trees_are_refused(message, tmp_path):
    path = write(tmp_path, broken(HOSTILE[message]))
    with pytest.raises(SourceError, match=message) as caught:
        read_glb(path, MOST)
    assert str(path) in str(caught.value)


def test_links_to_other_files_are_not_followed(tmp_path):
    """The geometry lies in a neighbouring file that a trusting reader would open."""
    tree, binary, _, _ = triangle(np.eye(4))
    (tmp_path / "geometry.bin").write_bytes(binary)
    tree["buffers"] = [{"uri": "geometry.bin", "byteLength": 84}]
    with pytest.raises(SourceError, match="does not parse"):
        read_glb(write(tmp_path, pack(tree)), MOST)


def test_a_triangle_must_name_vertices_that_are_there(tmp_path):
    tree, binary, _, _ = triangle(np.eye(4))
    bad = binary[:72] + np.array([0, 1, 900], dtype=np.uint32).tobytes()
    with pytest.raises(SourceError, match="names one that is not there|does not parse"):
        read_glb(write(tmp_path, pack(tree, bad)), MOST)
    bad = np.full(9, np.nan, np.float32).tobytes() + binary[36:]
    with pytest.raises(SourceError):
        read_glb(write(tmp_path, pack(tree, bad)), MOST)


@pytest.mark.parametrize("content", [b"", b"glTF", b"\x89PNG" + b"\0" * 40, pack({})[:-2], pack({}) + b"more"])
def test_other_files_are_refused(content, tmp_path):
    with pytest.raises(SourceError, match=r"object\.glb: expected"):
        read_glb(write(tmp_path, content), MOST)
    with pytest.raises(SourceError, match="cannot be read"):
        read_glb(tmp_path / "none.glb", MOST)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_ends_in_a_source_error_or_a_sound_mesh(data, tmp_path_factory):
    content = bytearray(make_glb("tower", [1]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(12, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(SourceError):
        mesh = read_glb(write(tmp_path_factory.mktemp("fuzz"), bytes(content)), MOST)
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.max() < len(mesh.vertices)
