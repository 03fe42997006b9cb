"""The writers of the Hypersim and Replica miniatures: the same bytes every time, the official names, bad settings."""

import hashlib

import pytest

from ncbench.datasets.mini.layout_hypersim import write_hypersim_layout
from ncbench.datasets.mini.layout_replica import write_replica_omnidata_layout, write_replica_renders_layout
from ncbench.datasets.mini.layout_replica_mesh import write_replica_mesh_layout
from ncbench.errors import CardError

SMALL = {"frames": 3, "height": 16, "width": 24}
ROOM = {"sequences": [{"name": "room_0", "kind": "room"}]}
SCENE = {"name": "ai_001_001", "kind": "room", "seed": 1}
WRITERS = {
    "hypersim": (write_hypersim_layout, SMALL | {"scenes": [SCENE]}),
    "nice_slam": (write_replica_renders_layout, SMALL | ROOM | {"form": "nice_slam", "focal": 12.0}),
    "vmap": (write_replica_renders_layout, SMALL | ROOM | {"form": "vmap", "focal": 12.0}),
    "omnidata": (write_replica_omnidata_layout, SMALL | ROOM),
    "mesh": (write_replica_mesh_layout, {"scenes": ["room_0"], "cells": 2}),
}
NAMES = {
    "hypersim": {"ai_001_001.zip", "metadata_camera_parameters.csv", "metadata_images_split_scene_v1.csv"},
    "nice_slam": {"room_0/traj.txt", "room_0/results/frame000002.jpg", "room_0/results/depth000000.png"},
    "vmap": {"room_0/vmap/00/rgb/rgb_2.png", "room_0/vmap/00/depth/depth_0.png", "room_0/vmap/00/traj_w_c.txt"},
    "omnidata": {
        "depth_zbuffer/replica/room_0/point_1_view_0_domain_depth_zbuffer.png",
        "point_info/replica/room_0/point_0_view_1_domain_point_info.json",
    },
    "mesh": {"room_0/mesh.ply"},
}


def hashes(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", WRITERS)
def test_same_bytes_and_official_names(tmp_path, name):
    write, settings = WRITERS[name]
    for copy in ("a", "b"):
        (tmp_path / copy).mkdir()
        write(tmp_path / copy, settings)
    first = hashes(tmp_path / "a")
    assert first == hashes(tmp_path / "b")
    assert set(first) >= NAMES[name]


@pytest.mark.parametrize("name", WRITERS)
def test_bad_settings(tmp_path, name):
    write, settings = WRITERS[name]
    with pytest.raises(CardError, match="unknown key"):
        write(tmp_path, settings | {"colour": 1})
    if name == "hypersim":
        with pytest.raises(CardError, match="differ"):
            write(tmp_path, settings | {"scenes": [SCENE, SCENE]})
