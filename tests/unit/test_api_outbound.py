"""Where webhooks are posted to, and where never."""

from __future__ import annotations

import base64
import json
import socket
import threading
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest

from db.settings import Settings
from scheduler.api.outbound import Refused, checked_url, is_public, post
from scheduler.api.webhooks import LONGEST_DELAY, MOST_ATTEMPTS, delay_of, sign

HERE = Settings(webhook_hosts=("hooks.example.com", ".example.org", "localhost"))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::",
     "64:ff9b::a00:1", "2001:0:1::", "ff02::1"],
)  # fmt: skip
def test_what_is_nobody_s_on_the_internet_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_what_is_somebody_s_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/a?b=c", "https://a.b.example.org:8443/", "https://HOOKS.example.com"]
)
def test_an_allowed_host_may_be_named(url: str) -> None:
    assert checked_url(HERE, url).scheme == "https"


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/", "https://hooks.example.com.evil.example/", "https://example.org/", "https://notexample.org/",
     "https://user:secret@hooks.example.com/", "https://hooks.example.com/#a", "ftp://hooks.example.com/", "hooks.example.com",
     "https:///path", "https://evil.example\\@hooks.example.com/", "file:///etc/passwd", ""],
)  # fmt: skip
def test_any_other_address_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        checked_url(HERE, url)


def test_nobody_is_allowed_where_the_setting_says_nothing() -> None:
    with pytest.raises(Refused, match="BAKEOFF_WEBHOOK_HOSTS, which allows nobody"):
        checked_url(Settings(), "https://hooks.example.com/")


def test_an_allowed_name_that_leads_inside_is_refused() -> None:
    with pytest.raises(Refused, match="no public address"):
        post(HERE, "https://localhost:9/", b"", {})


def test_one_address_inside_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("1.1.1.1", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)

    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        post(HERE, "https://hooks.example.com/", b"", {})


def test_over_the_internet_it_must_be_https(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)

    with pytest.raises(Refused, match="https"):
        post(HERE, "http://hooks.example.com/", b"", {})


def test_the_address_that_was_checked_is_the_one_that_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers otherwise a moment later leads nowhere else: it is asked once."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if asked.count("hooks.example.com") == 1 else "127.66.6.6", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    settings = HERE.model_copy(update={"webhook_networks": ("127.0.0.0/8",)})
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[bytes] = []
        thread = threading.Thread(target=answer_once, args=(server, heard))
        thread.start()
        status = post(settings, f"http://hooks.example.com:{server.getsockname()[1]}/a", b"{}", {})
        thread.join()

    assert (status, asked.count("hooks.example.com")) == (204, 1)
    assert b"Host: hooks.example.com:" in heard[0]


def answer_once(server: socket.socket, heard: list[bytes]) -> None:
    connection, _ = server.accept()
    with connection:
        heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


def test_a_signature_is_the_one_of_the_standard() -> None:
    """The example of the specification's libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = json.dumps({"test": 2432232314}).encode()

    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_delays_grow_to_a_day_and_no_further() -> None:
    delays = [delay_of(attempt, 5.0) for attempt in range(1, MOST_ATTEMPTS + 1)]

    assert 4 <= delays[0] <= 6
    assert all(later > earlier for earlier, later in pairwise(delays[:6]))
    assert max(delays) <= 1.2 * LONGEST_DELAY
