"""`outrider train-drafter`: the command. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def train_drafter(
    model: Annotated[str, typer.Argument(help='"demo", a .gguf file, a folder, or a hub id.', show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for data, training and drafter; a run there goes on.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='A .jsonl file of {"prompt": ...}, or a text file; yours are best.', show_default="a small set"
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1000, help="How many tokens the model writes to learn from.")] = 500_000,
    minutes: Annotated[float, typer.Option(min=0.0, help="How long to train, earlier runs there included.")] = 60.0,
    start: Annotated[str | None, typer.Option("--from", help="A drafter to adapt.", show_default="none")] = None,
    hidden: Annotated[int, typer.Option(min=32, help="The drafter's width.")] = 256,
    mlp: Annotated[int, typer.Option(min=32, help="The width of its MLPs.")] = 1024,
    depth: Annotated[int, typer.Option(min=1, max=8, help="Steps of a round that it is trained for.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Most batches; the rate falls towards the last.")] = 4000,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with.", show_default="all cores")] = None,
) -> None:
    """Make an MTP drafter for MODEL from what it writes itself. Needs the extra "train"."""
    try:
        from outrider.train.model import DrafterShape
        from outrider.train.recipe import Recipe, make_drafter
        from outrider.train.trainer import Settings
    except ImportError as error:
        raise UsageError(f"training needs {error.name}: pip install 'outrider[train]'") from error
    from outrider.console import error_console, progress_bar

    recipe = Recipe(
        model,
        out,
        prompts,
        tokens,
        minutes,
        start,
        DrafterShape(hidden=hidden, mlp=mlp),
        Settings(steps=depth, total_steps=steps),
        threads,
    )
    with progress_bar() as progress:
        task = progress.add_task("starting", total=1.0)

        def report(stage: str, done: float, figures: str) -> None:
            progress.update(task, description=f"{stage} {figures}".strip(), completed=done)

        facts = make_drafter(recipe, report)
    accepted = ", ".join(f"{rate:.0%}" for rate in facts["held_out"]["acceptance"])
    error_console().print(f"Held-out tokens accepted, by depth: {accepted}.")
    print(out / "drafter.gguf")
