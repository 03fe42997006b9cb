"""What the benchmark of the readers needs: the same files decoded plainly, and the renderer's truth of each frame."""

import csv
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import cv2
import h5py
import numpy as np
import OpenEXR
from scipy.io import loadmat

from ncbench.datasets.mini.clip_scene import clip_scene
from ncbench.datasets.mini.layout_hypersim import HypersimLayout, cast_keyframe
from ncbench.datasets.mini.layout_ken_burns import KenBurnsLayoutSettings, ken_burns_scene, move_view
from ncbench.datasets.mini.layout_matrixcity import MatrixCityLayoutSettings, matrixcity_scene
from ncbench.datasets.mini.layout_objaverse import GObjaverseLayoutSettings, gobjaverse_scene
from ncbench.datasets.mini.layout_replica import ReplicaRendersLayout, omnidata_view, still_frame
from ncbench.datasets.mini.layout_replica_mesh import ReplicaMeshLayout, room_blocks
from ncbench.datasets.mini.layout_scannet import with_focal
from ncbench.datasets.mini.layout_tum import FIELD_OF_VIEW
from ncbench.datasets.mini.layouts import LayoutSettings
from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.readers.ken_burns import VIEWS
from ncbench.geometry.cameras import pinhole_rays

LEFT_OUT = {
    "gobjaverse-mini": r"10011/campos_512_v4/00002/",  # lacks its picture
    "hypersim-mini": r"frame\.0001\.",  # not in the public split
    "kitti-mini": r"0000000005\.png",  # has no depth
    "matrixcity-mini": r"/small_city_depth/",  # the half-precision twin
    "sintel-mini": r"/final/",
    "tum-mini": r"rgb/1305031452\.858387",  # has no depth
}
"""Files of a miniature that its reader does not decode, so that plain decoding may not either."""


def inputs(root):
    """The files of a raw folder that plain decoding opens, as (path, pattern of members to leave out)."""
    left_out = re.compile(LEFT_OUT.get(root.name, r"(?!)"))
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path != root / "fetch.json"]
    return [path for path in files if not left_out.search(path.as_posix())], left_out


def decode_plainly(files, left_out):
    """Decode files and archives with the libraries that one would use first; nothing is converted or kept."""
    for path in files:
        for name, content in members(path):
            if not left_out.search(name):
                DECODERS[Path(name).suffix](content)


def members(path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    elif path.suffix == ".tar":
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                yield member.name, archive.extractfile(member).read()
    else:
        yield path.name, path.read_bytes()


def decode_picture(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def decode_exr(content):
    with OpenEXR.File(io.BytesIO(content), separate_channels=True) as file:
        return [channel.pixels for channel in file.channels().values()]


def decode_hdf5(content):
    with h5py.File(io.BytesIO(content)) as file:
        return file["dataset"][()]


def decode_sens(content):
    """ScanNet's stream: a header, then pose, picture and depth of each frame."""
    place = 12 + struct.unpack_from("<Q", content, 4)[0] + 4 * 16 * 4 + 8
    width, height = struct.unpack_from("<8xII", content, place)
    (count,) = struct.unpack_from("<Q", content, place + 20)
    place += 28
    for _ in range(count):
        color, depth = struct.unpack_from("<QQ", content, place + 80)
        place += 96
        decode_picture(content[place : place + color])
        grid = zlib.decompress(content[place + color : place + color + depth])
        np.frombuffer(grid, "<u2").reshape(height, width)
        place += color + depth


def decode_npz(content):
    with np.load(io.BytesIO(content)) as file:
        return [file[name] for name in file.files]


def decode_floats(content):
    return np.frombuffer(content, "<f4").copy()


DECODERS = {
    ".png": decode_picture,
    ".jpg": decode_picture,
    ".exr": decode_exr,
    ".hdf5": decode_hdf5,
    ".sens": decode_sens,
    ".npy": lambda content: np.load(io.BytesIO(content)),
    ".npz": decode_npz,
    ".mat": lambda content: loadmat(io.BytesIO(content)),
    ".flo": decode_floats,
    ".dpt": decode_floats,
    ".cam": decode_floats,
    ".txt": lambda content: content.decode().split(),
    ".csv": lambda content: list(csv.reader(content.decode().splitlines())),
    ".json": json.loads,
}


def decode_nyuv2(root):
    """The test pictures of NYUv2's MATLAB 7.3 files, one at a time."""
    sources = {"nyu_depth_v2_labeled": ("images", "depths"), "norm_gt_l": ("norm_gt_l",), "masks": ("masks",)}
    test = loadmat(root / "splits.mat")["testNdxs"].ravel() - 1
    for name, keys in sources.items():
        with h5py.File(root / f"{name}.mat") as file:
            for index in test:
                for key in keys:
                    file[key][index]


def layout_truth(layout, name, index, field_of_view=None):
    (sequence,) = (item for item in layout.sequences if item.name == name)
    return render_frame(clip_scene(layout, sequence, field_of_view), index)


def plain_truth(values, frame):
    """Clips whose frame numbers are the renderer's (+1 in Sintel, which counts from 1)."""
    layout = LayoutSettings.model_validate({key: values[key] for key in LayoutSettings.model_fields if key in values})
    first = 1 if {"room_1", "alley_1"} & {item.name for item in layout.sequences} else 0
    return layout_truth(layout, frame.sequence, frame.frame - first)


def tum_truth(values, frame):
    layout = LayoutSettings.model_validate({key: values[key] for key in LayoutSettings.model_fields if key in values})
    return layout_truth(layout, frame.sequence, frame.frame, FIELD_OF_VIEW)


def numbered_truth(step, focal=False):
    """Stills named ``<clip>-<number>``, numbered by ``step``."""

    def truth(values, frame):
        fields = LayoutSettings.model_fields
        layout = LayoutSettings.model_validate({key: values[key] for key in fields if key in values})
        name, number = re.fullmatch(r"(.+)[-_](\d+)", frame.sequence).groups()
        (sequence,) = (item for item in layout.sequences if item.name == name)
        scene = clip_scene(layout, sequence)
        scene = with_focal(scene, values["focal"]) if focal else scene
        return render_frame(scene, int(number) // step - (step == 1))

    return truth


def nyuv2_truth(values, frame):
    fields = LayoutSettings.model_fields
    layout = LayoutSettings.model_validate({key: values[key] for key in fields if key in values})
    clip, index = divmod(int(frame.sequence), layout.frames)
    scene = clip_scene(layout, layout.sequences[clip])
    return render_frame(with_focal(scene, values["focal"]), index)


def replica_truth(values, frame):
    layout = ReplicaRendersLayout.model_validate(values)
    (sequence,) = (item for item in layout.sequences if item.name == frame.sequence)
    return still_frame(layout, sequence, frame.frame, 2 * np.arctan(0.5 * layout.width / layout.focal))


def omnidata_truth(values, frame):
    layout = LayoutSettings.model_validate(values)
    name, point, view = re.fullmatch(r"(.+)/point_(\d+)_view_(\d+)", frame.sequence).groups()
    (sequence,) = (item for item in layout.sequences if item.name == name)
    return omnidata_view(layout, sequence, 2 * int(point) + int(view))


def ken_burns_truth(values, frame):
    layout = KenBurnsLayoutSettings.model_validate(values)
    name, number = frame.sequence.rsplit("-", 1)
    (capture,) = (item for item in layout.captures if item.name == name)
    sample = int(number) - 1
    return render_frame(move_view(ken_burns_scene(layout, capture, sample), sample, VIEWS[frame.frame]), 0)


def matrixcity_truth(values, frame):
    layout = MatrixCityLayoutSettings.model_validate(values)
    block = next(item for item in layout.blocks if item.name == frame.sequence.split("-")[1])
    scene, moments = matrixcity_scene(layout, block)
    return render_frame(scene, moments[frame.extra["source_frame"]])


def gobjaverse_truth(values, frame):
    layout = GObjaverseLayoutSettings.model_validate(values)
    item = next(item for item in layout.objects if frame.sequence == f"{item.group}-{item.number}")
    return render_frame(gobjaverse_scene(layout, item), frame.frame)


class Truth:
    """Exact (H, W, 3) normals in OpenCV camera axes and where they are."""

    def __init__(self, normal, valid):
        self.normal, self.valid = normal, valid


def hypersim_truth(values, frame):
    layout = HypersimLayout.model_validate(values)
    name, camera = frame.sequence.split("/cam_")
    scene = next(item for item in layout.scenes if item.name == name)
    exact = cast_keyframe(layout, scene, int(camera), frame.frame)
    return Truth(exact.cast.normal @ exact.pose[:3, :3], exact.cast.ids > 0)


def replica_mesh_truth(values, frame):
    """Slabs: the box that a ray enters first, and the room, which it leaves; float32 silhouettes are left out."""
    pose = frame.cam_to_world
    rays = pinhole_rays(frame.intrinsics, *frame.size) @ pose[:3, :3].T
    depth, normal = np.full(frame.size, np.inf), np.zeros((*frame.size, 3))
    for block in room_blocks(ReplicaMeshLayout.model_validate(values), frame.sequence):
        cos, sin = np.cos(block.yaw), np.sin(block.yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        origin, ways = (pose[:3, 3] - block.centre) @ turn, rays @ turn
        ends = np.stack([(-block.half - origin) / ways, (block.half - origin) / ways])
        enter, leave = ends.min(0), ends.max(0)
        t, axis = (leave.min(-1), leave.argmin(-1)) if block.inside else (enter.max(-1), enter.argmax(-1))
        side = np.sign(np.take_along_axis(ways, axis[..., None], -1))
        closer = ((t > 0) & (t <= leave.min(-1)) & (t < depth))[..., None]
        depth = np.where(closer[..., 0], t, depth)
        normal = np.where(closer, -side * turn.T[axis], normal)
    return Truth(normal @ pose[:3, :3], np.abs(frame.depth / depth - 1) < 1e-5)


def objaverse_truth(_values, frame):
    """The ball alone has normals in closed form; its mesh interpolates them."""
    if frame.sequence != "1a1b2c":
        return None
    rays = pinhole_rays(frame.intrinsics, *frame.size)
    points = frame.depth[..., None] * rays @ frame.cam_to_world[:3, :3].T + frame.cam_to_world[:3, 3]
    length = np.linalg.norm(points, axis=-1, keepdims=True)
    return Truth(points / length @ frame.cam_to_world[:3, :3], frame.valid)


TRUTHS = {
    "dsine-eval-mini": plain_truth,
    "gobjaverse-mini": gobjaverse_truth,
    "hypersim-mini": hypersim_truth,
    "ibims-mini": numbered_truth(1),
    "ken-burns-mini": ken_burns_truth,
    "marigold-eval-mini": numbered_truth(20),
    "matrixcity-mini": matrixcity_truth,
    "nyuv2-mini": nyuv2_truth,
    "objaverse-mini": objaverse_truth,
    "replica-mesh-mini": replica_mesh_truth,
    "replica-mini": replica_truth,
    "replica-omnidata-mini": omnidata_truth,
    "rooms": plain_truth,
    "scannet-mini": numbered_truth(20, focal=True),
    "scannet-video-mini": plain_truth,
    "sintel-mini": plain_truth,
    "tum-mini": tum_truth,
}
"""Exact normals of a frame by card: a function of the generator's settings and the frame that the reader gave."""


def errors_of(card, frames):
    """Angles in degrees between the reader's normals and the exact ones, over all pixels where both are.

    Returns None where the set has no normals or no exact truth.
    """
    found = []
    if card.name not in TRUTHS:
        return None
    for frame in frames:
        exact = TRUTHS[card.name](card.source.settings, frame)
        if exact is None:
            continue
        both = frame.valid & exact.valid
        a, b = frame.normal[both].astype(np.float64), exact.normal[both].astype(np.float64)
        found.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))))
    return np.concatenate(found)
