"""What must be said beside the numbers: of a row, and below a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ncbench.errors import ScoreError
from ncbench.reports.results import FIRST_SCHEMA, Result


def row_note(result: Result) -> str:
    """Say what a reader must know of one result; parts are joined by ``; ``, nothing to say is empty."""
    values, counts = result.values, result.values.counts
    notes = []
    if values.status == "partial":
        notes.append(f"partial: {counts.failed} of {counts.frames} frames failed{_where_failed(result)}")
    if values.status == "empty":
        notes.append("no valid pixel to score")
    if counts.invalid_predictions:
        notes.append(f"{counts.invalid_predictions} pixels without an answer")
    if values.dataset.name in values.model.training_sets:
        notes.append("trained on this data set")
    if values.probe.fix:
        notes.append(f"probe: {values.probe.kind}")
    if values.schema_version == FIRST_SCHEMA:
        notes.append(f"result of schema {FIRST_SCHEMA}: evaluate again for intervals and tests")
    if values.model.kind == "control":
        notes.append("control")
    return "; ".join(notes)


def table_notes(members: Sequence[Result], relatives: Sequence[Result]) -> list[str]:
    """Say everything that the numbers of one protocol's table depend on.

    Args:
        members: Its results: one protocol, one version of the data, one source of flow.
        relatives: Results of the same protocol's name that differ in one of these, and so stand in other tables.

    Returns:
        A line each.
    """
    first = members[0].values
    protocol, data = first.protocol, first.dataset
    pixels = max(one.values.counts.pixels for one in members)  # a partial result counts fewer
    flow = f"; flow {first.temporal.flow}" if first.temporal.flow else ""
    crop = ", ".join(f"{side} {size}" for side, size in protocol.crop.items() if size)
    protocol_line = (
        f"Protocol {protocol.name} {protocol.version} (sha256 {protocol.sha256[:12]}) on {data.name} (digest "
        f"{data.digest[:12]}): {first.counts.frames} frames, {pixels:,} pixels; resolution {protocol.resolution}, mask "
        f"{protocol.mask}{f', without {crop} pixels' if crop else ''}, pooled over {protocol.pooling}, thresholds "
        f"strict, a pixel without an answer counts as {protocol.invalid_prediction:g}°{flow}; OpenCV axes inside"
        f"{_axes(members)}. Errors in degrees, accuracies in percent."
    )
    return [protocol_line, _made_line(members), *_interval_lines(members), *_relatives_line(members[0], relatives)]


def _axes(members: Iterable[Result]) -> str:
    counted = Counter(one.values.model.axes for one in members if one.values.model.axes)
    return (
        f", predictions given in {listed(f'{name} ({number})' for name, number in counted.items())}" if counted else ""
    )


def _made_line(members: Sequence[Result]) -> str:
    """When, by which code and on what the results were made; only from the results, so that reports repeat."""
    dates = sorted({one.values.provenance.created[:10] for one in members if one.values.provenance.created})
    versions = {one.values.provenance.packages.get("ncbench", "") for one in members}
    scored = {str(one.values.provenance.code) for one in members}
    predicted = {str(one.values.predictions.code) for one in members}
    devices = {one.values.predictions.device for one in members}
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "at an unknown time"
    parts = [f"Scored {when}", f" by ncbench {listed(versions)}" if any(versions) else ""]
    parts.append(f", commit {listed(scored)}" if any(scored) else ", commit unknown")
    parts.append(f"; predicted by commit {listed(predicted)}" if any(predicted) else "")
    parts.append(f" on {listed(devices)}" if any(devices) else "")
    return "".join(parts) + "."


def _interval_lines(members: Iterable[Result]) -> list[str]:
    """How intervals were drawn, and why one should be doubted: a cell has no room for it."""
    drawn = [one.values.intervals for one in members if one.values.intervals.metrics]
    kinds = dict.fromkeys((one.confidence, one.units, one.unit, one.note) for one in drawn)
    return [
        f"Intervals of {confidence:g} %: bootstrap over {count} {unit}{f'; {note}' if note else ''}."
        for confidence, count, unit, note in kinds
        if confidence is not None
    ]


def _relatives_line(first: Result, relatives: Sequence[Result]) -> list[str]:
    if not relatives:
        return []
    names = ("protocol", "protocol", "data", "flow")
    kept = first.table_key()
    kinds = sorted(
        {
            name
            for one in relatives
            for name, mine, other in zip(names, kept, one.table_key(), strict=True)
            if mine != other
        }
    )
    line = (
        f"Of a protocol called {first.protocol} there are other results, with another version of the {listed(kinds)}, "
        f"in tables of their own: {listed(one.model for one in relatives)}. Never compare them."
    )
    return [line]


def _where_failed(result: Result) -> str:
    """Name the sequences that failed, where the rows of frames are there."""
    try:
        frames = result.frames()
    except ScoreError:
        return ""
    names = list(dict.fromkeys(frames.loc[frames["status"] != "scored", "sequence"]))
    return f" (in {listed(names[:3])}{' and others' if len(names) > 3 else ''})" if names else ""


def listed(words: Iterable[str]) -> str:
    """Join words that are not empty: each once, sorted, with commas."""
    return ", ".join(sorted({word for word in words if word}))
