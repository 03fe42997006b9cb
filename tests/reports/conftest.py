"""One finished benchmark that the tests of the page share: scored for real, some of it missing on purpose."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ncbench import catalog, evaluate
from ncbench.cards import DatasetCard, ReportCard
from ncbench.datasets.fetch import fetch
from ncbench.datasets.prepare import prepare
from ncbench.datasets.recipe import recipe_for
from ncbench.models.run import predict
from ncbench.reports.page import write_page
from ncbench.reports.results import load_results
from ncbench.reports.table import build_tables

EVIL = "<img src=x onerror=alert(1)> & \"q\" 'p' </script> ../%41#?"
EVIL_SEQUENCE = "a <b>&amp; #1"
SETTINGS = {
    "seed": 5,
    "frames": 5,
    "height": 48,
    "width": 64,
    "sequences": [{"name": "objects", "kind": "objects"}, {"name": "room", "kind": "room"}],
}


def write_yaml(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))


def write_cards(root):
    source = {"kind": "generate", "generator": "ncbench.datasets.mini.layouts:write_folder_layout"}
    data = catalog.load(DatasetCard, "rooms").model_dump(mode="json") | {"name": "shown"}
    write_yaml(root / "datasets" / "shown.yaml", data | {"source": source | {"settings": SETTINGS}})
    protocol = {"name": "shown", "version": "1.0.0", "title": "Shown", "summary": "A test.", "dataset": "shown"}
    options = {"metrics": ["bfd", "tge"], "track_window": 3}
    protocol |= {"temporal": {"flow": "gt", "options": options}, "slices": ["depth_edge", "border"]}
    write_yaml(root / "evaluators" / "shown.yaml", protocol)
    gaps = {"name": "gaps", "version": "1.0.0", "title": "Gaps", "summary": "A test.", "dataset": "shown"}
    evil = {"name": "evil", "version": "1.0.0", "title": EVIL, "summary": "", "kind": "image", "axes": "opencv"}
    write_yaml(
        root / "models" / "evil.yaml",
        evil | {"adapter": "ncbench.models.controls:Bias", "settings": {"degrees": 8.0}, "training_sets": ["shown"]},
    )
    report = {"name": "main", "title": "A <i>test</i>", "summary": "Of the page."}
    columns = ["mean", "median", "within_11_25", "bfd_flicker"]
    write_yaml(
        root / "reports" / "main.yaml", report | {"columns": columns, "sort_by": "mean", "pictures_per_protocol": 10}
    )
    return gaps


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory):
    """Folders of a finished benchmark and its report; shared, so never write into it.

    Under ``gaps``, the last frame of each sequence was never predicted by ``blur``.
    """
    root: Path = tmp_path_factory.mktemp("shown")
    gaps = write_cards(root)
    data = root / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        card = catalog.load(DatasetCard, "shown")
        fetch(card, data / "raw")
        (data / "raw" / "room").rename(data / "raw" / EVIL_SEQUENCE)
        prepare(recipe_for(card, data / "raw"), data / "stores" / "shown")
        write_yaml(root / "evaluators" / "gaps.yaml", gaps | {"frames": {"count": 4}})
        predict("blur", "gaps")
        write_yaml(root / "evaluators" / "gaps.yaml", gaps)
        evaluate("blur", "gaps")
        for model in ("frontal", "blur", "flicker", "evil"):
            predict(model, "shown")
            evaluate(model, "shown")
        predict("frontal", "gaps")
        evaluate("frontal", "gaps")
        report = catalog.load(ReportCard, "main")
        tables = build_tables(load_results(data / "results"), report)
        write_page(root / "report", tables, report, data / "stores", data / "predictions")
    return SimpleNamespace(root=root, data=data, report=root / "report", tables=tables, card=report)


METRICS = {"mean": 10.0, "median": 8.0, "rmse": 12.0, "within_5": 20.0, "within_7_5": 30.0}
METRICS |= {"within_11_25": 60.0, "within_22_5": 70.0, "within_30": 80.0}


@pytest.fixture
def write_result(tmp_path):
    """Write a ``result.json`` without scoring anything: keywords are metrics, or say what else is different."""

    def write(model, *, protocol="p", sha="a" * 64, data="b" * 64, title=None, failed=0, training=(), **metrics):
        counts = {"frames": 4, "scored": 4 - failed, "failed": failed, "pixels": 100, "invalid_predictions": 0}
        scoring = {"resolution": "native", "mask": "valid", "pooling": "pixels", "invalid_prediction": 90.0}
        values = {
            "schema": 2,
            "model": {"name": model, "title": title or model, "kind": "image", "training_sets": list(training)},
            "protocol": {"name": protocol, "version": "1.0.0", "title": protocol, "sha256": sha} | scoring,
            "dataset": {"name": "d", "digest": data},
            "status": "partial" if failed else "complete",
            "counts": counts,
            "metrics": {} if failed else METRICS | metrics,
            "intervals": {},
            "temporal": {},
            "probe": {"kind": "fits"},
            "files": {},
        }
        folder = tmp_path / protocol / model
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(values))
        return folder / "result.json"

    return write
