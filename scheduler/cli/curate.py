"""Commands about curation: curate run, serve, resume, status, extend, report, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db.settings import load_settings
from scheduler.cli.completing import JOBS
from scheduler.cli.output import console, print_json, state, table
from scheduler.curation.status import described, record_count, status_of

if TYPE_CHECKING:
    from db.curation import Job
    from db.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobName = Annotated[str, typer.Argument(help="The job's name: its recipe's.", autocompletion=JOBS)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    curate = typer.Typer(help="Many machine-made instructions in, the best of them out.", no_args_is_help=True)
    curate.command("run")(run_command)
    curate.command("serve")(serve_command)
    curate.command("resume")(resume_command)
    curate.command("status")(status_command)
    curate.command("extend")(extend_command)
    curate.command("report")(report_command)
    curate.command("export")(export_command)
    curate.command("delete")(delete_command)
    app.add_typer(curate, name="curate")


def run_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML): input, stages, what each of them does.")],
    name: Annotated[str | None, typer.Option(help="The job's name, instead of the recipe's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many records at most.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything, whatever limits the recipe has.")] = False,
    out: Annotated[Path | None, typer.Option(help="Export and report into this folder at the end.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe's job to its end; one that was stopped goes on where it was, one that is done stays as it is."""
    from scheduler.curation.recipe import read_recipe
    from scheduler.curation.runner import start_job

    settings = load_settings()
    changes: dict[str, Any] = {} if name is None else {"name": name}
    if full:
        changes |= {"limit": None, "per_type": None}
    if limit is not None:
        changes |= {"limit": limit}
    job = start_job(settings, read_recipe(recipe, eval_data=settings.eval_data, changes=changes))
    _run(settings, job.name, out, as_json=as_json)


def serve_command() -> None:
    """Run every job that is to run and that nobody runs, one after the other, until SIGTERM. Several share the jobs."""
    from scheduler.curation.serving import serve

    serve(load_settings())


def resume_command(
    job: JobName,
    out: Annotated[Path | None, typer.Option(help="Export and report into this folder at the end.")] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a job that was stopped, killed or extended."""
    _run(load_settings(), job, out, as_json=as_json)


def _run(settings: Settings, name: str, out: Path | None, *, as_json: bool) -> None:
    from scheduler.cli.funnel import Funnel
    from scheduler.curation.export import export_job
    from scheduler.curation.runner import run_job

    with Funnel(settings, name) as report:
        job = run_job(settings, name, report)
    if out is not None:
        export_job(settings, name, out)
    _show(settings, job, as_json=as_json)


def status_command(
    job: Annotated[str | None, typer.Argument(help="A job; default: the latest ones.", autocompletion=JOBS)] = None,
    as_json: AsJson = False,
) -> None:
    """How far jobs are: how many records came to each stage and why they left it."""
    from db.curation import list_jobs, read_job
    from db.engine import engine_of, transaction

    settings = load_settings()
    if job is not None:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            found = read_job(connection, job)
        _show(settings, found, as_json=as_json)
        return
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        jobs = list_jobs(connection, 50)
    if as_json:
        print_json([described(one) for one in jobs])
        return
    out = table("job", "status", "stage", "records", "created")
    for one in jobs:
        out.add_row(one.name, state(one.status), one.stage or "", str(record_count(one)), f"{one.created_at:%F %H:%M}")
    console.print(out if jobs else "No jobs yet; `bakeoff curate run RECIPE` makes one.")


def extend_command(
    job: JobName,
    file: Annotated[Path, typer.Argument(help="More records, in the form of the job's input.")],
    as_json: AsJson = False,
) -> None:
    """Add input to a job; `curate resume` then gives what one run on everything would have given."""
    from scheduler.curation.runner import extend_job

    extended = extend_job(load_settings(), job, file)
    if as_json:
        print_json(described(extended))
        return
    console.print(f"{file.name} is added; `bakeoff curate resume {job}` goes on.", soft_wrap=True)


def report_command(
    job: JobName,
    out: Annotated[Path, typer.Option(help="Where the HTML page is written.")] = Path("curation.html"),
    as_json: AsJson = False,
) -> None:
    """Write the report: funnel, scores, samples of what was kept and of what was dropped, with reasons."""
    from scheduler.curation.report import write_report

    write_report(load_settings(), job, out)
    if as_json:
        print_json({"job": job, "file": str(out)})
        return
    console.print(f"Written to {out}.", soft_wrap=True)


def export_command(
    job: JobName,
    out: Annotated[Path, typer.Option(help="A folder: kept records, preference pairs, manifest, report.")],
    as_json: AsJson = False,
) -> None:
    """Write what a job leaves, in the form of its input."""
    from scheduler.curation.export import export_job

    manifest = export_job(load_settings(), job, out)
    if as_json:
        print_json(manifest)
        return
    for file in manifest["files"]:
        console.print(f"{file['rows']:>8}  {out / file['name']}", soft_wrap=True)


def delete_command(
    job: JobName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a job, its records and what became of each; its tasks stay until they are pruned."""
    from scheduler.curation.runner import remove_job

    if not yes:
        typer.confirm(f"Forget the job {job!r} and every record of it?", abort=True, err=True)
    remove_job(load_settings(), job)
    if as_json:
        print_json({"job": job, "deleted": True})
        return
    console.print(f"{job} is forgotten.", soft_wrap=True)


def _show(settings: Settings, job: Job, *, as_json: bool) -> None:
    from db.engine import engine_of, transaction

    with transaction(engine_of(settings.dsn, "cli")) as connection:
        found = status_of(connection, job)
    if as_json:
        print_json(found)
        return
    console.print(f"{job.name}: {job.status}" + (f" at {job.stage}" if job.stage else ""), soft_wrap=True)
    if job.error:
        console.print(job.error, style="red", soft_wrap=True)
    out = table("stage", "came", "passed", "waiting", "dropped", wrap=("dropped",))
    for one in found["stages"]:
        dropped = ", ".join(f"{rule} {n}" for rule, n in one["dropped"].items())
        out.add_row(one["stage"], str(one["came"]), str(one["passed"]), str(one["waiting"]), dropped)
    console.print(out)
