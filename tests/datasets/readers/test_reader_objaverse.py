"""Objects rendered by the Objaverse reader, against brute force in double precision and against closed forms."""

import contextlib
import dataclasses
import gzip
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from ncbench import catalog
from ncbench.cards import DatasetCard
from ncbench.datasets.formats.objaverse_glb import Mesh, Opacity, Surface, read_glb
from ncbench.datasets.mini.layout_objaverse import write_objaverse_layout
from ncbench.datasets.readers.objaverse import ObjaverseReader, _centred
from ncbench.datasets.readers.objaverse_camera import OrbitRule, make_orbit
from ncbench.datasets.readers.objaverse_tracer import Tracer
from ncbench.errors import CardError, SourceError

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "objaverse_like_glb"
LAYOUT = {
    "seed": 14,
    "objects": [
        {"uid": "0a", "shape": "box", "licence": "by"},
        {"uid": "1a", "shape": "ball", "licence": "cc0"},
        {"uid": "2a", "shape": "tower", "licence": "by-nc", "shard": "000-001"},
    ],
}
LATTICE = {"objects": [{"uid": "3a", "shape": "lattice"}]}
SETTINGS = {"axes": "opencv", "frames": 3, "height": 24, "width": 32, "orbit": {"turns": 0.1}, "samples": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("objaverse")
    write_objaverse_layout(out, LAYOUT)
    return out


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "raw")
    return tmp_path / "raw"


def first_hits(mesh, origin, directions):
    """Moeller and Trumbore for every ray and every triangle: t, index, and the margin to the triangle's border."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    e1, e2 = b - a, c - a
    p = np.cross(directions[:, None], e2)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / np.einsum("nfi,fi->nf", p, e1)
        s = origin - a
        u = np.einsum("nfi,fi->nf", p, s) * inverse
        q = np.cross(s, e1)
        v = np.einsum("fi,ni->nf", q, directions) * inverse
        t = np.einsum("fi,fi->f", q, e2) * inverse
    margin = np.minimum(np.minimum(u, v), 1 - u - v)
    t = np.where((margin >= 0) & (t > 1e-9), t, np.inf)
    best = t.argmin(axis=1)
    rows = np.arange(len(t))
    near_an_edge = (np.abs(margin) < 1e-5).any(axis=1)
    return t[rows, best], best, np.stack([1 - u - v, u, v], -1)[rows, best], near_an_edge


def first_hits_that_are_there(mesh, origin, directions):
    """As ``first_hits``, for a mesh of one surface with holes: SciPy reads the alpha at every crossing."""
    (surface,) = mesh.surfaces
    alpha = surface.opacity.texture / 255
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    best, unsure = np.full(len(directions), np.inf), np.zeros(len(directions), bool)
    for place, corners in enumerate(mesh.faces):
        e1, e2 = b[place] - a[place], c[place] - a[place]
        tuv = np.full((len(directions), 3), np.nan)
        for ray, direction in enumerate(directions):
            with contextlib.suppress(np.linalg.LinAlgError):
                tuv[ray] = np.linalg.solve(np.stack([-direction, e1, e2], axis=1), origin - a[place])
        t, u, v = tuv.T
        margin = np.minimum(np.minimum(u, v), 1 - u - v)
        unsure |= (np.abs(margin) < 1e-4) & (t > 0)
        texel = np.stack([1 - u - v, u, v], axis=1) @ surface.uv[corners]
        row, column = (1 - texel[:, 1]) * alpha.shape[0] - 0.5, texel[:, 0] * alpha.shape[1] - 0.5
        found = map_coordinates(alpha, np.nan_to_num([row, column]), order=1, mode="grid-wrap")
        hit = (margin >= 0) & (t > 1e-9)
        unsure |= hit & (np.abs(found - surface.opacity.cutoff) < 1e-6)
        best = np.where(hit & (found >= surface.opacity.cutoff) & (t < best), t, best)
    return best, unsure


def test_rays_pass_where_a_texture_is_cut_out(tmp_path):
    write_objaverse_layout(tmp_path, LATTICE)
    reader = ObjaverseReader(tmp_path, SETTINGS)
    path = reader._files["3a"]
    mesh = _centred(path, read_glb(path, 10**6), 0.5)
    solid = dataclasses.replace(mesh, surfaces=(dataclasses.replace(mesh.surfaces[0], opacity=None),))
    counts = np.zeros(3, int)
    frames = list(reader.read("3a", range(2)))
    for frame in frames:
        origin, directions = frame.cam_to_world[:3, 3], rays(frame)
        t, unsure = first_hits_that_are_there(mesh, origin, directions)
        clear = ~unsure
        np.testing.assert_array_equal(frame.valid.ravel()[clear], np.isfinite(t)[clear])
        both = clear & np.isfinite(t)
        np.testing.assert_allclose(frame.depth.ravel()[both], t[both], rtol=1e-6)
        outer, _, _, _ = first_hits(solid, origin, directions)
        counts += [(t[both] == outer[both]).sum(), (t[both] > outer[both] * 1.01).sum(), (outer < t)[clear].sum()]
    front, inside, _ = counts
    assert front > 40
    assert inside > 40  # squares of the far side, seen through holes of the near one
    assert counts[2] > inside  # and holes with nothing behind
    # what is seen through a hole now and hidden by a bar in the next frame, and the other way round
    points = frames[0].depth.reshape(-1, 1) * rays(frames[0]) + frames[0].cam_to_world[:3, 3]
    seen = frames[0].valid.ravel()
    origin = frames[1].cam_to_world[:3, 3]
    t, unsure = first_hits_that_are_there(mesh, origin, points[seen] - origin)
    unsure |= np.abs(t - 1) > 0.01  # and wholly clear of where the surface itself is only just cut out
    expected = t < 1 - 1e-4
    agree = frames[0].occluded.ravel()[seen][~unsure] == expected[~unsure]
    assert agree.mean() > 0.97
    pixels = np.asarray(Image.open(io.BytesIO(frames[0].image)))
    assert (pixels[~frames[0].valid] == 255).mean() > 0.8  # the background shows through


def quad(depth, alpha):
    """Two triangles that fill the view at some depth, with a constant alpha."""
    corners = np.array([[-9, -9, depth], [9, -9, depth], [9, 9, depth], [-9, 9, depth]], float)
    return corners, Surface(None, None, None, np.ones(3), None if alpha is None else Opacity(None, alpha, 0.5))


def stack(*layers):
    corners, surfaces = zip(*(quad(depth, alpha) for depth, alpha in layers), strict=True)
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * place for place in range(len(layers))])
    normals = np.tile([0.0, 0, -1], (4 * len(layers), 1))
    first = tuple(4 * place for place in range(len(layers)))
    return Mesh(np.concatenate(corners), faces, normals, np.repeat(np.arange(len(layers)), 2), first, surfaces)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([(1, 0.4), (2, 0.6)], 2),
        ([(1, 0.5), (2, 0.6)], 1),  # as much as the cutoff is there
        ([(2, None), (1, 0.4)], 2),
        ([(1, 0.4)], np.nan),
        ([(1 + 0.01 * layer, 0.1) for layer in range(20)] + [(3, 1.0)], 3),
        ([(1 + 0.01 * layer, 0.1) for layer in range(80)] + [(3, 1.0)], np.nan),  # more than a ray is followed through
    ],
)
def test_layers_of_one_alpha(layers, expected):
    directions = np.array([[0, 0, 1.0], [0.1, 0.2, 1], [-0.3, 0.1, 1]])
    hits = Tracer(stack(*layers)).trace(np.zeros(3), directions)
    np.testing.assert_allclose(hits.t, expected, rtol=1e-12)
    np.testing.assert_array_equal(hits.face >= 0, ~np.isnan(hits.t))
    np.testing.assert_array_equal(np.isnan(hits.weights).any(axis=1), np.isnan(hits.t))


def rays(frame):
    height, width = frame.size
    k = frame.intrinsics
    y, x = np.indices((height, width))
    local = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1).reshape(-1, 3)
    return local @ frame.cam_to_world[:3, :3].T


@pytest.mark.parametrize("uid", ["0a", "2a"])
@pytest.mark.parametrize("kind", ["face", "smooth"])
def test_depth_normals_flow_and_occlusion_are_those_of_brute_force(uid, kind, made, record_property):
    reader = ObjaverseReader(made, SETTINGS | {"normals": kind})
    mesh = _centred(reader._files[uid], read_glb(reader._files[uid], 10**6), 0.5)
    frames = list(reader.read(uid, range(3)))
    worst = 0.0
    for index, frame in enumerate(frames):
        origin, directions = frame.cam_to_world[:3, 3], rays(frame)
        t, face, weights, edge = first_hits(mesh, origin, directions)
        hit = np.isfinite(t)
        clear = ~edge
        np.testing.assert_array_equal(frame.valid.ravel()[clear], hit[clear])
        both = clear & hit
        assert both.mean() > 0.05
        np.testing.assert_allclose(frame.depth.ravel()[both], t[both], rtol=1e-6)
        a, b, c = np.moveaxis(mesh.vertices[mesh.faces[face[both]]], 1, 0)
        flat = np.cross(b - a, c - a)
        flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
        flat *= -np.sign((flat * directions[both]).sum(-1, keepdims=True))
        expected = flat
        if kind == "smooth":
            expected = np.einsum("nk,nki->ni", weights[both], mesh.normals[mesh.faces[face[both]]])
            expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
            expected *= np.sign((expected * flat).sum(-1, keepdims=True))
        expected = expected @ frame.cam_to_world[:3, :3]
        found = frame.normal.reshape(-1, 3)[both].astype(np.float64)
        sine, cosine = np.linalg.norm(np.cross(found, expected), axis=-1), (found * expected).sum(-1)
        worst = max(worst, np.degrees(np.arctan2(sine, cosine)).max())
        if index + 1 < len(frames):
            check_motion(mesh, frame, frames[index + 1], origin + t[:, None] * directions, both)
    record_property("degrees", f"max {worst:.2g}")
    assert worst < np.degrees(np.sqrt(3) * 2**-24) + 1e-5  # float32 storage, and a margin for edges of the picture
    assert frames[2].flow is None


def check_motion(mesh, frame, following, points, both):
    height, width = frame.size
    world_to_cam = np.linalg.inv(following.cam_to_world)
    local = points[both] @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]
    pixels = local @ following.intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    y, x = np.divmod(np.flatnonzero(both), width)
    flow = frame.flow.reshape(-1, 2)[both]
    np.testing.assert_allclose(flow, pixels - np.stack([x, y], -1), atol=1e-4)
    inside = ((pixels >= 0) & (pixels <= [width - 1, height - 1])).all(axis=1)
    origin = following.cam_to_world[:3, 3]
    t, _, _, edge = first_hits(mesh, origin, points[both] - origin)
    hidden = ~inside | (t < 1 - 1e-4)
    clear = ~edge
    np.testing.assert_array_equal(frame.occluded.ravel()[both][clear], hidden[clear])
    assert np.isnan(frame.flow.reshape(-1, 2)[~frame.valid.ravel()]).all()
    assert frame.occluded.ravel()[~frame.valid.ravel()].all()


def test_a_ball_has_the_normals_of_a_ball(made):
    """Interpolated vertex normals of a fine ball stay within its chords' angle of the true ones."""
    for frame in ObjaverseReader(made, SETTINGS).read("1a", range(3)):
        points = (frame.depth.reshape(-1, 1) * rays(frame) + frame.cam_to_world[:3, 3])[frame.valid.ravel()]
        exact = points / np.linalg.norm(points, axis=-1, keepdims=True) @ frame.cam_to_world[:3, :3]
        found = frame.normal[frame.valid].astype(np.float64)
        angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(found, exact), axis=-1), (found * exact).sum(-1)))
        assert np.median(angle) < 0.5
        facing = (found * (rays(frame) @ frame.cam_to_world[:3, :3])[frame.valid.ravel()]).sum(-1)
        assert (facing < 0).all()


def test_pictures_show_the_objects_colours(made):
    for uid in ("0a", "1a", "2a"):
        frame = next(ObjaverseReader(made, SETTINGS | {"background": [10, 20, 30]}).read(uid, [0]))
        pixels = np.asarray(Image.open(io.BytesIO(frame.image)))
        assert pixels.shape == (24, 32, 3)
        np.testing.assert_array_equal(pixels[0, 0], [10, 20, 30])
        assert pixels[frame.valid].std(axis=0).max() > 3  # texture, colours or light vary


def test_the_whole_object_stays_in_the_picture():
    rule = OrbitRule(turns=1.0)
    orbit = make_orbit(rule, 3, "uid", 60, 0.5, (90, 160))
    again = make_orbit(rule, 3, "uid", 60, 0.5, (90, 160))
    np.testing.assert_array_equal(orbit.poses, again.poses)
    assert not np.array_equal(orbit.poses, make_orbit(rule, 3, "other", 60, 0.5, (90, 160)).poses)
    places = orbit.poses[:, :3, 3]
    half = np.arctan(np.tan(np.radians(25)) * 90 / 160)
    assert (np.arcsin(0.5 / np.linalg.norm(places, axis=-1)) <= half + 1e-9).all()
    elevation = np.degrees(np.arcsin(places[:, 1] / np.linalg.norm(places, axis=-1)))
    assert -15 - 1e-9 <= elevation.min() < elevation.max() <= 60 + 1e-9
    step = np.linalg.norm(np.diff(places, axis=0, append=places[:1]), axis=-1)
    assert step.max() < 0.25 * np.linalg.norm(places[0])  # continuous, and closed
    for pose in orbit.poses:
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) > 0
        assert pose[1, 1] < 0  # the picture's down is the world's down


def test_licences_follow_the_objects(made, root):
    reader = ObjaverseReader(made, SETTINGS)
    assert {uid: next(reader.read(uid, [0])).extra["licence"] for uid in reader.sequences()} == {
        "0a": "by",
        "1a": "cc0",
        "2a": "by-nc",
    }
    assert list(ObjaverseReader(made, SETTINGS | {"licences": ["by", "cc0"]}).sequences()) == ["0a", "1a"]
    path = root / "metadata" / "000-001.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"other": {"license": "by"}}).encode()))
    changed = ObjaverseReader(root, SETTINGS)
    assert next(changed.read("2a", [0])).extra["licence"] == "unknown"
    assert changed.fingerprint("2a", [0]) != reader.fingerprint("2a", [0])
    assert changed.fingerprint("0a", [0]) == reader.fingerprint("0a", [0])
    for content in (b"", b"no gzip", gzip.compress(b"[1]"), gzip.compress(b'{"a": 1}'), path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"000-001\.json\.gz: expected gzipped JSON"):
            next(ObjaverseReader(root, SETTINGS).read("2a", [0]))
    path.unlink()
    with pytest.raises(SourceError, match="the metadata of these objects"):
        next(ObjaverseReader(root, SETTINGS).read("2a", [0]))


def test_lists_choose_objects(root):
    (root / "mine.txt").write_text("0a\n2a\n")
    (root / "broken.txt").write_text("2a\n")
    lists = {"include": "mine.txt", "exclude": "broken.txt"}
    assert list(ObjaverseReader(root, SETTINGS | lists).sequences()) == ["0a"]
    with pytest.raises(SourceError, match="a list of uids"):
        ObjaverseReader(root, SETTINGS | {"include": "none.txt"})


def test_broken_objects_and_empty_folders_are_told(root, tmp_path):
    path = root / "glbs" / "000-000" / "0a.glb"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SourceError, match=r"0a\.glb: expected"):
        list(ObjaverseReader(root, SETTINGS).read("0a", [0]))
    skipped = list(ObjaverseReader(root, SETTINGS | {"skip_broken": True}).read("0a", [0, 2]))
    assert [(item.sequence, item.frame) for item in skipped] == [("0a", 0), ("0a", 2)]
    assert skipped[0].reason.startswith("glbs/000-000/0a.glb: expected")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="expected objects"):
        ObjaverseReader(tmp_path / "empty", SETTINGS)
    with pytest.raises(CardError, match="axes"):
        ObjaverseReader(root, {"axes": "opengl"})
    with pytest.raises(SourceError, match=r"not \[3\]"):
        list(ObjaverseReader(root, SETTINGS).read("1a", [3]))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real samples are not here")
def test_real_objects_render():
    reader = ObjaverseReader(REAL, SETTINGS | {"height": 96, "width": 128})
    assert list(reader.sequences()) == ["BoxTextured", "CesiumMilkTruck"]
    for uid in reader.sequences():
        for frame in reader.read(uid, range(2)):
            assert frame.extra == {"licence": "unknown"}
            assert 0.05 < frame.valid.mean() < 0.7
            assert not frame.valid[[0, -1]].any()
            assert not frame.valid[:, [0, -1]].any()
            np.testing.assert_allclose(np.linalg.norm(frame.normal[frame.valid], axis=-1), 1, atol=1e-6)
            pixels = np.asarray(Image.open(io.BytesIO(frame.image)))[frame.valid].astype(int)
            assert np.ptp(pixels, axis=1).max() > 60  # the textures hold strong colours
            visible = frame.valid & ~frame.occluded
            assert visible.sum() > 0.5 * frame.valid.sum()


@pytest.mark.parametrize("name", ["objaverse", "objaverse-mini"])
def test_the_cards_settings_fit_the_reader(name, made):
    card = catalog.load(DatasetCard, name)
    assert ObjaverseReader(made, card.reader_settings()).normal_source == card.normals
