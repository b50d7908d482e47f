"""`ftm prefetch`: bring a quarter's sentences into the bucket."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.errors import ConflictError, UsageError
from cli.options import JsonOption, QuarterArgument
from cli.services import executions
from cli.services import prefetch as service
from cli.stack import Stack, connect

app = typer.Typer(no_args_is_help=True, help="Bring a quarter's sentences into the bucket.")


@app.command()
def put(
    ctx: typer.Context,
    quarter: QuarterArgument,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds manifest.json and its chunks, or the bucket's prefetch/ folder."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a prefetch and upload it; nothing is uploaded unless all of it is whole.

    \b
    Example:
      ftm prefetch put 2016Q2 exports/2016Q2
    """
    prefetch = service.load(quarter, folder)
    _upload(connect(ctx.obj), prefetch, as_json)


@app.command()
def sample(
    ctx: typer.Context,
    quarter: QuarterArgument,
    firms: Annotated[int, typer.Option(min=1, help="Firms that hold a call.")] = 12,
    as_json: JsonOption = False,
) -> None:
    """Upload sample calls with known topics, made by ftm itself.

    \b
    Example:
      ftm --stack local prefetch sample 2023Q1 --firms 5
    """
    from local.samples import writer as samples

    stack = connect(ctx.obj)
    with tempfile.TemporaryDirectory() as folder:
        try:
            samples.write(Path(folder), quarter, firms)
        except ValueError as error:
            raise UsageError(str(error)) from error
        _upload(stack, service.load(quarter, Path(folder)), as_json)


def _upload(stack: Stack, prefetch: service.Prefetch, as_json: bool) -> None:
    manifest, bucket = prefetch.manifest, stack.output("bucket")
    if running := executions.running(stack, manifest.quarter):
        raise ConflictError(f"{manifest.quarter} is being run as {running.name}, which reads the prefetch: wait for it")
    service.upload(stack, prefetch, on_chunk=lambda chunk: output.hint(f"uploaded {chunk}"))
    document = {
        "quarter": manifest.quarter,
        "bucket": bucket,
        "firms": len(manifest.firm_to_chunk),
        "chunks": len(manifest.chunk_sizes),
        "sentences": prefetch.sentences,
    }
    if as_json:
        output.print_json(document)
        return
    output.print_line(
        f"{manifest.quarter} is in {bucket}: {output.count(len(manifest.firm_to_chunk), 'firm')}, "
        f"{output.count(prefetch.sentences, 'sentence')}, {output.count(len(manifest.chunk_sizes), 'chunk')}, "
        f"{prefetch.size / 1e6:.2f} MB"
    )
    output.hint(f"run it with `{stack.command} run-quarter {manifest.quarter}`")
