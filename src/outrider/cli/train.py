"""`outrider train-drafter`: the command. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider.console import ModelArgument, ThreadsOption
from outrider.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train_drafter(
    model: ModelArgument,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for data, checkpoint and drafter; an interrupted run resumes."),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Prompts like your own: a .jsonl file of {"prompt": ...}, or a text file.',
            show_default="a small set",
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1000, metavar="TOKENS", help="Training data that MODEL generates.")
    ] = 500_000,
    minutes: Annotated[
        float, typer.Option(min=0.0, metavar="MINUTES", help="Training time, earlier runs included.")
    ] = 60.0,
    start: Annotated[
        str | None, typer.Option("--from", metavar="PATH", help="Drafter to start from.", show_default="none")
    ] = None,
    hidden: Annotated[int, typer.Option(min=32, help="Hidden size of the drafter, a multiple of 32.")] = 256,
    mlp: Annotated[int, typer.Option(min=32, help="Intermediate size of the drafter's MLPs, a multiple of 32.")] = 1024,
    depth: Annotated[int, typer.Option(min=1, max=8, help="Draft length in training, in tokens.")] = 3,
    steps: Annotated[
        int, typer.Option(min=1, help="Maximum number of batches, over which the learning rate decays.")
    ] = 4000,
    keep_checkpoint: Annotated[
        bool, typer.Option("--keep-checkpoint", help="Keep the training state, so that more --minutes continue it.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Train an MTP drafter for MODEL.

    It learns from text that MODEL generates. Needs the extra "train".
    """
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
        keep_checkpoint,
    )
    console = error_console()
    try:
        with progress_bar() as progress:
            task = progress.add_task("starting", total=1.0)

            def advance(stage: str, done: float, figures: str) -> None:
                progress.update(task, description=f"{stage} {figures}".strip(), completed=done)

            def announce(line: str) -> None:
                style = "yellow" if line.startswith("warning") else "dim"
                progress.console.print(line, style=style, markup=False)

            facts = make_drafter(recipe, advance, announce)
    except KeyboardInterrupt:
        console.print("stopped; the same command continues")
        raise typer.Exit(130) from None
    accepted = ", ".join(f"{rate:.0%}" for rate in facts["held_out"]["acceptance"])
    console.print(f"Held-out acceptance rate by depth: {accepted}.")
    print(out / "drafter.gguf")
