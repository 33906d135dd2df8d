"""`bakeoff api`: the HTTP API."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from db.errors import RefusedNow
from db.settings import Settings, load_settings
from scheduler.cli.output import console
from scheduler.cli.typos import warn_of_typos
from scheduler.local.files import http_url

if TYPE_CHECKING:
    import uvicorn


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("api")(api_command)


def api_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: BAKEOFF_API_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; default: BAKEOFF_API_PORT.")] = None,
) -> None:
    """Run the HTTP API; any number may run side by side. Without a key it listens on this machine only."""
    import uvicorn

    from db.engine import make_engine
    from scheduler.api.access import Access
    from scheduler.api.app import make_app
    from scheduler.api.patience import Impatient

    warn_of_typos()
    settings = _settings(host, port)
    engine = make_engine(settings.dsn, application="api", pool_size=1)
    Access(settings, engine).check_start()
    engine.dispose()
    for number in (signal.SIGTERM, signal.SIGINT):  # the server raises it again when it has stopped in order
        signal.signal(number, _end)
    several = settings.api_workers > 1
    config = uvicorn.Config(
        "scheduler.api.app:make_app" if several else make_app(settings),
        factory=several,
        host=settings.api_host,
        port=settings.api_port,
        workers=settings.api_workers,
        log_config=None,  # ours is configured already
        access_log=False,
        log_level="warning",  # each request has a line of ours
        server_header=False,
        http=Impatient,
        proxy_headers=False,  # whoever says where a request came from could say anything
        timeout_graceful_shutdown=int(settings.stop_seconds),
    )
    listening = listen(config)
    console.print(f"The API listens on {http_url(*listening.getsockname()[:2])}", soft_wrap=True)
    sys.stdout.flush()
    if several:
        from uvicorn.supervisors import Multiprocess

        from scheduler.api.traffic import shared_figures

        with shared_figures():
            Multiprocess(config, sockets=[listening]).run()
    else:
        uvicorn.Server(config).run(sockets=[listening])


def listen(config: uvicorn.Config) -> socket.socket:
    """The socket of the API. Raises `RefusedNow` where somebody else has the port."""
    try:
        listening = config.bind_socket()
    except SystemExit:
        where = f"{config.host}:{config.port}"
        raise RefusedNow(f"{where} cannot be listened on; the line above says why. Try another --port.") from None
    # asyncio sets it only on sockets that say that they are TCP, which this one does not; without it every answer that
    # is written in two parts waits 40 ms for the client's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _settings(host: str | None, port: int | None) -> Settings:
    """The settings with the command's own, which processes that it starts see too."""
    for name, value in (("BAKEOFF_API_HOST", host), ("BAKEOFF_API_PORT", port)):
        if value is not None:
            os.environ[name] = str(value)
    load_settings.cache_clear()
    return load_settings()


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)
