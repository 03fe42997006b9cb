"""The command line: parses and delegates, no logic. Heavy imports wait until a verb runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from ncbench.cli import bench, compare, data, loaders, train
from ncbench.cli.cards import cards, datasets_app, models_app, protocols_app
from ncbench.cli.options import STORES, Stores
from ncbench.engine.process import tune_process
from ncbench.errors import NcbenchError


class _ErrorsWithoutTraceback(TyperGroup):
    """Prints an error that the user can act on, without a traceback, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's base class leaves the context's type private
        try:
            return super().invoke(ctx)
        except (NcbenchError, OSError) as error:
            if ctx.params["debug"]:
                raise
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(getattr(error, "exit_code", 1)) from error


app = typer.Typer(
    name="ncbench",
    cls=_ErrorsWithoutTraceback,
    help="Honest, fast, reproducible benchmarks and data for surface normals from images and video.",
    epilog="Example: ncbench fetch rooms && ncbench prepare rooms && ncbench predict depth_oracle rooms",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app)
app.add_typer(bench.app)
app.add_typer(compare.app)
app.add_typer(datasets_app, name="datasets")
app.add_typer(models_app, name="models")
app.add_typer(protocols_app, name="protocols")
app.add_typer(loaders.app, name="loaders")
app.add_typer(train.app)
app.add_typer(train.recipes_app, name="recipes")
app.command(epilog="Example: ncbench cards --to data/cards")(cards)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001 the group reads it
) -> None:
    if version:
        from ncbench import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: ncbench doctor")
def doctor(stores: Stores = STORES) -> None:
    """Say what this machine can run, what is missing and how to get it."""
    from ncbench.doctor import diagnose

    shown = Table("check", "state", "what to do", title="ncbench doctor", title_justify="left")
    findings = diagnose(stores)
    for finding in findings:
        colour = "green" if finding.ok else "yellow"
        shown.add_row(finding.check, f"[{colour}]{escape(finding.state)}[/]", escape(finding.remedy))
    Console().print(shown)
    if not all(finding.ok or finding.optional for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    tune_process()
    app()
