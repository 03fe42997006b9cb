"""What slices and intervals cost, beside the scoring itself, in one run.

``python -m pytest benchmarks/test_slices.py`` prints medians. One Sintel-sized frame (436 x 1024) with every column; a
slice should cost no more than the scoring of the frame. Intervals: 2,000 resamples of the pooled metrics.
"""

import numpy as np
import pytest

from ncbench.datasets.mini.render import render_frame
from ncbench.datasets.mini.rooms import make_scene
from ncbench.evaluators.angular import AngularState, angular_error
from ncbench.evaluators.slices.scorer import SliceScorer
from ncbench.evaluators.slices.standard import SLICES, named_slices
from ncbench.evaluators.statistics.bootstrap import intervals
from ncbench.evaluators.statistics.paired import compare
from ncbench.evaluators.statistics.units import UnitStatistics
from ncbench.evaluators.view import View

HEIGHT, WIDTH = 436, 1024
THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)


@pytest.fixture(scope="module")
def views():
    """Two frames of a clip, and noisy predictions for the second."""
    scene, made = make_scene("objects", 0, 3, HEIGHT, WIDTH), []
    for index in range(2):
        frame = render_frame(scene, index)
        planes = {
            f"mask_{kind}": (frame.ids == k).astype(np.uint8) for k, kind in enumerate(("wall", "table", "floor"))
        }
        made.append(
            View(
                sequence="s",
                frame=index,
                normal=frame.normal.astype(np.float32),
                valid=frame.valid,
                depth=frame.depth.astype(np.float32),
                flow=frame.flow.astype(np.float32),
                flow_to=index + 1,
                occluded=frame.occluded,
                intrinsics=frame.intrinsics,
                extra=planes,
            )
        )
    noise = 0.2 * np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, 3))
    return made, (made[1].normal + noise).astype(np.float32)


@pytest.mark.benchmark(group="one frame, 436 x 1024")
def test_scoring(benchmark, views):
    (_, view), preds = views
    benchmark(AngularState.score, preds, view.normal, view.valid, THRESHOLDS, 90.0)


@pytest.mark.benchmark(group="one frame, 436 x 1024")
def test_errors_of_the_pixels(benchmark, views):
    (_, view), preds = views
    benchmark(angular_error, preds, view.normal)


@pytest.mark.benchmark(group="one frame, 436 x 1024")
@pytest.mark.parametrize("names", [[], *([name] for name in SLICES), list(SLICES)], ids=["none", *SLICES, "all"])
def test_slices(benchmark, views, names):
    (previous, view), preds = views
    scorer = SliceScorer(named_slices(names), THRESHOLDS, 90.0)

    def setup():
        scorer.add(preds, previous)  # the frame that disocclusion looks back at; also compiles
        return (preds, view), {}

    benchmark.pedantic(scorer.add, setup=setup, rounds=10)


def random_units(sequences, frames, seed):
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(sequences * frames):
        errors = np.clip(rng.gamma(2, rng.uniform(3, 12), 5000), 0, 180)
        state = AngularState.of(errors, THRESHOLDS, 90.0)
        parts.append(UnitStatistics.of(f"s{number // frames:04}", number % frames, state))
    return UnitStatistics.concatenate(parts)


@pytest.fixture(scope="module", params=[(23, 46), (1064, 1)], ids=["23 sequences", "1064 pictures"])
def two_models(request):
    return [random_units(*request.param, seed) for seed in (0, 1)]


@pytest.mark.benchmark(group="2,000 resamples")
@pytest.mark.parametrize("pooling", ["pixels", "frames", "sequences"])
def test_intervals(benchmark, two_models, pooling):
    benchmark.pedantic(intervals, (two_models[0], pooling), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="2,000 resamples")
@pytest.mark.parametrize("pooling", ["pixels", "frames"])
def test_comparison(benchmark, two_models, pooling):
    benchmark.pedantic(compare, (*two_models, pooling), rounds=3, warmup_rounds=1)
