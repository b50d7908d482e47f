"""`ftm prefetch`: upload a quarter's sentences into the bucket, and see what is there."""

import tempfile
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from cli import output
from cli.errors import ConflictError, NotFoundError, UsageError
from cli.options import JsonOption, QuarterArgument, YesOption
from cli.services import executions
from cli.services import prefetch as service
from cli.services import prefetch_table as table
from cli.stack import LOCAL, Stack, connect

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Upload a quarter's sentences, and see what is there.",
)


class UploadedPrefetch(TypedDict):
    """What `put` and `sample` print with `--json`."""

    quarter: str
    bucket: str
    firms: int
    chunks: int
    sentences: int
    notes: list[str]
    """Values that the jobs will read differently than they are written, a sentence for each column."""


class MadePrefetch(TypedDict):
    """What `make` prints with `--json`."""

    quarter: str
    folder: str
    firms: int
    sentences: int
    other_quarters: int
    """Rows left out, since their column `quarter` names another one."""
    notes: list[str]


ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing prefetch without asking.")]


@app.command()
def put(
    ctx: typer.Context,
    quarter: QuarterArgument,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds manifest.json and its chunks, or the bucket's prefetch/ folder."),
    ],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a prefetch and upload it.

    Nothing is uploaded unless all of it is valid. An existing prefetch of the quarter is replaced only with --force
    or after a question.

    \b
    Example:
      ftm prefetch put 2016Q2 exports/2016Q2
    """
    prefetch = service.load(quarter, folder)
    stack = connect(ctx.obj)
    _ask_to_replace(stack, quarter, force)
    _upload(stack, prefetch, as_json)


@app.command()
def make(
    quarter: QuarterArgument,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Tables: .csv, .jsonl or .parquet, or folders.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder for the prefetch.")],
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=COLUMN", help="The files' column for one of the prefetch; repeatable."),
    ] = None,
    language: Annotated[str, typer.Option(help="The texts' language, an ISO 639 code.")] = "en",
    as_json: JsonOption = False,
) -> None:
    """Make a prefetch from tables of transcripts.

    A row needs a firm_id and a raw_text. Without the columns sentence_id and position, each text is split into
    sentences. Rows whose column quarter names another quarter are left out.

    \b
    Example:
      ftm prefetch make 2016Q2 calls.csv --out exports/2016Q2 --map raw_text=text
    """
    made = table.make(quarter, files, dict(_pair(text) for text in mapping or []), language, out)
    if made.other_quarters:
        output.hint(f"{output.count(made.other_quarters, 'row')} of other quarters left out")
    for note in made.prefetch.notes:
        output.hint(note)
    firms, sentences = len(made.prefetch.manifest.firm_to_chunk), made.prefetch.sentences
    if as_json:
        document: MadePrefetch = {
            "quarter": quarter,
            "folder": str(out),
            "firms": firms,
            "sentences": sentences,
            "other_quarters": made.other_quarters,
            "notes": made.prefetch.notes,
        }
        output.print_json(document)
        return
    output.print_line(f"{out}: {output.count(firms, 'firm')}, {output.count(sentences, 'sentence')}")
    output.hint(f"upload it with `ftm prefetch put {quarter} {out}`")


@app.command()
def sample(
    ctx: typer.Context,
    quarter: QuarterArgument,
    firms: Annotated[int, typer.Option(min=1, help="Number of firms with a call.")] = 12,
    force: ForceOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Upload generated sample calls with known topics.

    On every stack but local, it asks first.

    \b
    Example:
      ftm --stack local prefetch sample 2023Q1 --firms 5
    """
    from local.samples import writer as samples

    stack = connect(ctx.obj)
    if stack.name != LOCAL:
        output.confirm(f"Upload made-up calls as {quarter} to the stack {stack.name}?", yes=yes)
    _ask_to_replace(stack, quarter, force)
    with tempfile.TemporaryDirectory() as folder:
        try:
            samples.write(Path(folder), quarter, firms)
        except ValueError as error:
            raise UsageError(str(error)) from error
        _upload(stack, service.load(quarter, Path(folder)), as_json)


@app.command("list")
def list_quarters(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the quarters that have a prefetch.

    \b
    Example:
      ftm prefetch list --json | jq -r '.[].quarter'
    """
    stack = connect(ctx.obj)
    found = service.inventory(stack)
    if as_json:
        output.print_json(found)
        return
    rows = [(item["quarter"], item["firms"], item["chunks"], item["bytes"], item["created_at"]) for item in found]
    output.print_table(("quarter", "firms", "chunks", "bytes", "created"), rows, drop=("bytes", "chunks"))
    if not found:
        output.hint(f"there is none: upload one with `{stack.command} prefetch put QUARTER DIR`")


@app.command()
def show(ctx: typer.Context, quarter: QuarterArgument, as_json: JsonOption = False) -> None:
    """Show the prefetch of a quarter: firms, sentences, chunks, date.

    \b
    Example:
      ftm prefetch show 2023Q1
    """
    found = service.describe(connect(ctx.obj), quarter)
    if as_json:
        output.print_json(found)
        return
    output.print_line(
        f"{quarter}: {output.count(found['firms'], 'firm')}, {output.count(found['sentences'], 'sentence')}, "
        f"{output.count(len(found['chunks']), 'chunk')}, {found['bytes'] / 1e6:.2f} MB, created {found['created_at']}"
    )
    rows = [(chunk["name"], chunk["firms"], chunk["sentences"], chunk["bytes"]) for chunk in found["chunks"]]
    output.print_table(("chunk", "firms", "sentences", "bytes"), rows)


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise UsageError(f"--map {text} is not NAME=COLUMN, such as firm_id=ticker")
    return name, column


def _ask_to_replace(stack: Stack, quarter: str, force: bool) -> None:
    try:
        held = service.of_stack(stack, quarter)
    except NotFoundError:
        return
    firms = output.count(len(held.firm_to_chunk), "firm")
    try:
        output.confirm(f"{quarter} has a prefetch of {firms} already. Replace it?", yes=force)
    except UsageError as error:
        raise ConflictError(f"{quarter} has a prefetch of {firms} already: replace it with --force") from error


def _upload(stack: Stack, prefetch: service.Prefetch, as_json: bool) -> None:
    manifest, bucket = prefetch.manifest, stack.output("bucket")
    if running := executions.running(stack, manifest.quarter):
        raise ConflictError(f"{running.name} is running and reads the prefetch of {manifest.quarter}: wait for it")
    for note in prefetch.notes:
        output.hint(note)
    service.upload(stack, prefetch, on_chunk=lambda chunk: output.hint(f"uploaded {chunk}"))
    document: UploadedPrefetch = {
        "quarter": manifest.quarter,
        "bucket": bucket,
        "firms": len(manifest.firm_to_chunk),
        "chunks": len(manifest.chunk_sizes),
        "sentences": prefetch.sentences,
        "notes": prefetch.notes,
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
