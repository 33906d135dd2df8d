"""A rolling upgrade: the version before runs beside the new schema and the new processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from db import migrate
from db.errors import SchemaBehind
from db.revision import check_schema, wanted
from tests.compose import CHECKOUT
from tests.conftest import Installation, wait_until

pytestmark = pytest.mark.integration

STARTS = "import scheduler.loop, scheduler.cli.processes, scheduler.cli.tasks, worker.run, worker.judging, worker.pool"
CODE = ("db", "worker", "scheduler", "migrations", "models.toml")


def revision_before() -> str:
    """The schema before the newest migration."""
    newest = ScriptDirectory.from_config(migrate.configuration("")).get_revision("head")
    assert isinstance(newest.down_revision, str)
    return newest.down_revision


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def previous_code(folder: Path) -> Path:
    """The code of the last commit before the newest migration came, from this checkout's history.

    A commit in the middle of a larger change may not even start; then it is the one before that does.
    """
    (newest,) = (CHECKOUT / "migrations" / "versions").glob(f"{wanted()}_*.py")
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(newest)).splitlines()
    commits = git("rev-list", "--max-count=40", f"{added[-1]}^" if added else "HEAD").splitlines()
    for commit in commits:
        code = folder / commit
        code.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit, *CODE], cwd=CHECKOUT, capture_output=True, check=True)
        subprocess.run(["tar", "--extract", "--directory", code], input=archive.stdout, check=True)
        if subprocess.run([sys.executable, "-c", STARTS], cwd=code, capture_output=True, check=False).returncode == 0:
            return code
    pytest.skip("this tree has no history that reaches back to the version before (a shallow clone, or no clone)")


def test_new_code_waits_for_its_schema(installation: Installation) -> None:
    engine = installation.engine()
    before = revision_before()
    command.downgrade(migrate.configuration(installation.database_url), before)

    refused = installation.run("worker", "alpha")

    assert refused.code == 3, refused.err
    assert f"has schema {before}, and this version wants {wanted()}: run `bakeoff db upgrade`" in " ".join(
        refused.err.split()
    )
    with engine.begin() as connection, pytest.raises(SchemaBehind):
        check_schema(connection)
    assert installation.run("db", "upgrade").code == 0
    with engine.begin() as connection:
        check_schema(connection)
    engine.dispose()


@pytest.mark.deploy
@pytest.mark.timeout(1200)
def test_the_version_before_works_on_the_new_schema_beside_the_new_one(
    installation: Installation, tmp_path: Path
) -> None:
    old = {"PYTHONPATH": str(previous_code(tmp_path / "before")), "PYTHONSAFEPATH": "1"}
    versions = installation.run("db", "upgrade", env=old)
    assert versions.code != 0 or wanted() not in versions.out  # it is the older code indeed

    installation.settings.update(old)
    installation.start("old-scheduler", "scheduler")
    installation.start("old-judge", "worker", "--judge")
    installation.start("old-alpha", "worker", "alpha")
    installation.wait_ready(3)
    assert installation.run("submit", "asked while only the old one runs", "-c", "text-generation", "--wait").code == 0

    for name in old:
        del installation.settings[name]
    installation.start("new-scheduler", "scheduler")
    installation.start("new-beta", "worker", "beta")
    installation.start("new-judge", "worker", "--judge")
    installation.wait_ready(6)
    for number in range(8):
        asked = installation.run("submit", f"{number}", "-c", "text-generation", env=old if number % 2 else None)
        assert asked.code == 0, asked.err
    wait_until(lambda: done(installation) == 9, 120, installation.logs)

    answered = installation.query("SELECT model, count(*) AS n FROM candidate WHERE status = 'done' GROUP BY model")
    assert {row.model: row.n for row in answered} == {"alpha": 9, "beta": 8}
    installation.stop("old-scheduler")
    installation.stop("old-judge")
    assert installation.run("submit", "the new one alone", "-c", "text-generation", "--wait").code == 0
    assert "Traceback" not in installation.logs()


def done(installation: Installation) -> int:
    (row,) = installation.query("SELECT count(*) AS n FROM task WHERE status = 'done'")
    return int(row.n)


COLUMNS = """
SELECT table_name || '.' || column_name AS name, udt_name AS type,
       is_nullable = 'YES' OR column_default IS NOT NULL OR is_identity = 'YES' AS may_be_left_out
FROM information_schema.columns WHERE table_schema = current_schema()
UNION ALL
SELECT proname || '()', pg_get_function_identity_arguments(oid), true FROM pg_proc
WHERE pronamespace = current_schema()::regnamespace
"""


def test_no_migration_takes_away_what_the_version_before_uses(database: Engine) -> None:
    """What has to go goes one version after its last use, and the changelog names it: see docs/upgrade.md."""
    configuration = migrate.configuration(database.url.render_as_string(hide_password=False))
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    revisions = [script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()][::-1]
    command.downgrade(configuration, revisions[0])
    before = columns(database)
    for revision in revisions[1:]:
        command.upgrade(configuration, revision)
        after = columns(database)

        gone = {name for name, (kind, _) in before.items() if after.get(name, ("gone", True))[0] != kind}
        unannounced = {name for name in gone if f"`{name}`" not in changelog}
        assert not unannounced, f"{revision} takes away or changes {sorted(unannounced)}"
        tables = {name.split(".")[0] for name in before}
        needed = {name for name, (_, optional) in after.items() if not optional and name not in before}
        assert not {name for name in needed if name.split(".")[0] in tables}, f"{revision}: older code cannot insert"
        tightened = {name for name, (_, optional) in before.items() if optional and not after.get(name, ("", True))[1]}
        assert not tightened, f"{revision} demands {sorted(tightened)}, which older code may leave out"
        before = after


def columns(database: Engine) -> dict[str, tuple[str, bool]]:
    """Every column of a table or view, every function: its type, and whether a row may be inserted without it."""
    with database.begin() as connection:
        return {row.name: (row.type, row.may_be_left_out) for row in connection.execute(text(COLUMNS))}
