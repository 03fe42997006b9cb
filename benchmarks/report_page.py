"""How large is a report's page, how long does it take to write, and how quickly does it open?

    python -m benchmarks.report_page FOLDER [MODELS [FRAMES]]

Renders a clip of 640 x 480, makes predictions that look like a network's (the blurred truth, turned by a few degrees
that change slowly over the picture and from frame to frame, with half a degree of noise at every pixel), scores them,
writes the page, and opens it from disk in Chromium. FOLDER is kept: a second run measures the page alone.
"""

import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import yaml
from playwright.sync_api import sync_playwright

from ncbench import catalog, evaluate
from ncbench.cards import DatasetCard, ReportCard
from ncbench.datasets.fetch import fetch
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for
from ncbench.models.base import NormalModel
from ncbench.models.run import predict
from ncbench.reports.page import write_page
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables

SIZE = {"height": 480, "width": 640}


class Network(NormalModel):
    """The truth as a network of some quality might answer."""

    per_frame = True
    needs_truth = True

    def __init__(self, settings):
        self.degrees = settings["degrees"]

    def predict(self, clip):
        return np.stack([self._answer(n, k) for k, n in zip(clip.frames, clip.truth.normal, strict=True)])

    def _answer(self, normal, frame):
        rng = np.random.default_rng([round(self.degrees * 10), frame])
        size = normal.shape[1::-1]
        coarse = cv2.resize(rng.normal(size=(6, 8, 3)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        fine = rng.normal(size=normal.shape).astype(np.float32)
        smooth = cv2.GaussianBlur(normal, (0, 0), 1.5)
        bent = smooth + np.radians(self.degrees) * coarse + np.radians(0.5) * fine
        return bent / np.linalg.norm(bent, axis=-1, keepdims=True)


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))


def make_results(models, frames):
    """Data, predictions and results in the current folder."""
    settings = {"seed": 1, "frames": frames, **SIZE, "sequences": [{"name": "objects", "kind": "objects"}]}
    source = {
        "kind": "generate",
        "generator": "ncbench.datasets.mini.layouts:write_folder_layout",
        "settings": settings,
    }
    base = catalog.load(DatasetCard, "rooms").model_dump(mode="json")
    write(Path("datasets/clip.yaml"), base | {"name": "clip", "source": source})
    protocol = {"name": "clip", "version": "1.0.0", "title": "One clip", "summary": "", "dataset": "clip"}
    write(Path("evaluators/clip.yaml"), protocol)
    report = {
        "name": "main",
        "title": "A measured page",
        "summary": "",
        "columns": ["mean", "median"],
        "sort_by": "mean",
    }
    write(Path("reports/main.yaml"), report | {"pictures_per_protocol": frames})
    card = catalog.load(DatasetCard, "clip")
    fetch(card, Path("data/raw/clip"))
    prepare(recipe_for(card, Path("data/raw/clip")), Path("data/stores/clip"))
    for index in range(models):
        name = f"network{index}"
        card = {"name": name, "version": "1.0.0", "title": f"Network {index}", "summary": "", "kind": "image"}
        card |= {"adapter": "benchmarks.report_page:Network", "settings": {"degrees": 2.0 + index}, "axes": "opencv"}
        write(Path(f"models/{name}.yaml"), card)
        predict(name, "clip")
        evaluate(name, "clip", on_mistake="off")


def open_times(page, runs=5):
    """Seconds until the tables can be used, and until the viewer shows its first frame; the best of a few."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    usable, viewed, scrubbed = [], [], []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        for _ in range(runs):
            browser = playwright.chromium.launch(executable_path=path, args=arguments)
            tab = browser.new_page(viewport={"width": 1440, "height": 1000})
            started = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("section:not([hidden])[data-ready]")
            usable.append(time.perf_counter() - started)
            tab.wait_for_selector("section:not([hidden]) [data-drawn]")
            viewed.append(time.perf_counter() - started)
            tab.wait_for_selector("section:not([hidden]) [data-sliced]")
            tab.locator("section:not([hidden]) [data-role='viewer']").focus()
            started = time.perf_counter()
            tab.keyboard.press("ArrowRight")
            tab.wait_for_selector("section:not([hidden]) [data-drawn^='0/1/']")
            scrubbed.append(time.perf_counter() - started)
            browser.close()
    return {"usable": usable, "viewer": viewed, "next frame": scrubbed}


def main(folder, models=10, frames=50):
    root = Path(folder).resolve()
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)
    if not Path("data/results").is_dir():
        make_results(models, frames)
    shutil.rmtree("report", ignore_errors=True)
    started = time.perf_counter()
    card = catalog.load(ReportCard, "main")
    tables = build_tables(load_results(Path("data/results")), card)
    write_page(Path("report"), tables, card, Path("data/stores"), Path("data/predictions"))
    written = time.perf_counter() - started
    files = [path for path in Path("report").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    text = next(Path("report/data").glob("*/protocol.js")).read_text()
    clip = json.loads(text[text.index(",") + 1 : -3])["viewer"]["clips"][0]
    print(f"{models} models x {frames} frames of {SIZE['width']} x {SIZE['height']}")
    shown = f"shown at {clip['width']} x {clip['height']}"
    print(f"written in {written:.1f} s: {len(files)} files, {size / 1e6:.1f} MB, {shown}")
    for name, seconds in open_times(root / "report" / "index.html").items():
        print(f"{name}: median {statistics.median(seconds):.2f} s, best {min(seconds):.2f} s")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
