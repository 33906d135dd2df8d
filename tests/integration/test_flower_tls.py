"""Flower reads the queues of a Redis that is reached over TLS only, with certificates of one's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlencode

import pytest
from flower.utils.broker import Broker
from sqlalchemy.engine import make_url

from tests.integration.tls_parts import Front, fronts, make_papers
from worker.app import configuration
from worker.reconnect import EagerConnection

pytestmark = pytest.mark.integration


def test_the_brokers_page_reads_queues_over_tls(
    servers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    plain, papers = make_url(servers[1]), make_papers(tmp_path)
    front = Front(papers, (str(plain.host), int(plain.port or 0)))
    files = urlencode({"ssl_ca_certs": papers.ca, "ssl_certfile": papers.certificate, "ssl_keyfile": papers.key})
    with fronts(front):
        account = f":{plain.password}@" if plain.password else ""
        monkeypatch.setenv("BAKEOFF_REDIS_URL", f"rediss://{account}localhost:{front.port}/0?{files}")
        said = configuration()

        # when it is asked as Flower asks
        address = EagerConnection(said["broker_url"], transport=said["broker_transport"], ssl=said["broker_use_ssl"])
        broker = Broker(
            address.as_uri(include_password=True),
            broker_options=said["broker_transport_options"],
            broker_use_ssl=said["broker_use_ssl"],
        )
        found = asyncio.run(broker.queues(["model.nobody"]))

    # then
    assert found == [{"name": "model.nobody", "messages": 0}]
