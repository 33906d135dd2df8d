"""`python -m docs.generator [FOLDER]`: write the reference, by default to docs/reference."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pydantic import SecretStr

from db import migrate
from db.engine import make_engine, transaction
from db.settings import Settings
from docs.generator import commands, http, metrics, registry, schema, settings
from scheduler.api.app import make_app
from scheduler.local.servers import EmbeddedPostgres

DOCS = Path(__file__).resolve().parents[1]
INDEX = """# Reference

Made from the code by `make docs`: nothing here is kept up by hand.

```{toctree}
:maxdepth: 1

cli
http
settings
models
recipe
schema
metrics
```
"""


def pages(database_url: str) -> dict[str, str]:
    """The reference by name of its files. The database is an empty one of its own, which is migrated."""
    migrate.upgrade(database_url)
    here = Settings(database_url=SecretStr(database_url), models_file=DOCS.parent / "models.toml", profile="demo")
    engine = make_engine(database_url, application="docs")
    try:
        with transaction(engine) as connection:
            views = schema.read_views(connection)
        figures = metrics.page(here, engine)
    finally:
        engine.dispose()
    return {
        "index": INDEX,
        "cli": commands.page(),
        "http": http.page(_openapi(here)),
        "settings": settings.page(),
        "models": registry.page(),
        "recipe": registry.recipe_page(),
        "schema": schema.page(views),
        "metrics": figures,
    }


def _openapi(here: Settings) -> dict[str, object]:
    return make_app(here).openapi()


def write(folder: Path) -> None:
    """Write all pages, with a Postgres of their own for as long as that takes."""
    with tempfile.TemporaryDirectory() as place:
        server = EmbeddedPostgres(Path(place), durable=False)
        try:
            written = pages(server.start())
        finally:
            server.stop()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (folder / f"{name}.md").write_text(text.rstrip() + "\n")
    print(f"{len(written)} pages in {folder}")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "reference")
