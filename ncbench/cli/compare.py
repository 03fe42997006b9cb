"""The verb that compares two folders of results, for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: ncbench compare main/data/results data/results --fail-if 'mean:+0.5' --to comment.md")
def compare(
    base: Annotated[Path, typer.Argument(help="Results before the change.")],
    head: Annotated[Path, typer.Argument(help="Results after it.")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit 6 where a metric got worse by more than this and beyond noise: 'mean:+0.5', 'rooms/mean:+2%', "
            "'rooms/blur/within_30:+1'. May be given again."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Differences within noise count for --fail-if.")] = False,
    metric: Annotated[list[str] | None, typer.Option(help="A column; may be given again. Default: headlines.")] = None,
    to: Annotated[Path | None, typer.Option(help="File for the Markdown; default: standard output.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for all numbers.")] = None,
) -> None:
    """Compare two folders of results: Markdown with differences, intervals, and what broke a rule."""
    from ncbench.errors import ScoreError
    from ncbench.files import write_bytes
    from ncbench.reports.compare.changes import compare_results
    from ncbench.reports.compare.markdown import to_markdown
    from ncbench.reports.compare.numbers import to_json
    from ncbench.reports.compare.rules import parse_rule, require_metrics, violations

    rules = [parse_rule(text) for text in fail_if or ()]
    comparison = compare_results(base, head)
    require_metrics(metric or (), comparison)
    broken = violations(comparison, rules, strict=strict)
    text = to_markdown(comparison, broken, metric)
    if json:
        write_bytes(json, to_json(comparison, broken).encode())
    if to:
        write_bytes(to, text.encode())
    else:
        typer.echo(text, nl=False)
    if broken:
        raise ScoreError("; ".join(broken))
