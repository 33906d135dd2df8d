"""Posting to an address that somebody else named, without being led anywhere else.

Only hosts of the setting BAKEOFF_WEBHOOK_HOSTS. The name is resolved once, every address that is not public is refused
(but for BAKEOFF_WEBHOOK_NETWORKS), and the connection goes to the address that was checked, so that a name cannot
answer otherwise a moment later. Redirects are not followed, proxies of the environment not used.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

import httpx

from db.errors import InvalidRequest

if TYPE_CHECKING:
    from db.settings import Settings

TIMEOUT = 10.0  # seconds, from the first byte sent to the last header read
Address = IPv4Address | IPv6Address
#: Ranges of IPv6 that hold an IPv4 address, which may be anybody's: 6to4, Teredo, NAT64.
CARRIERS = [IPv6Network("2002::/16"), IPv6Network("2001::/32"), IPv6Network("64:ff9b::/96")]


class Refused(InvalidRequest):
    """An address that is not posted to."""

    code = "refused_address"


def checked_url(settings: Settings, text: str) -> httpx.URL:
    """An address whose words are right; where its name leads is seen when it is used. Raises `Refused`."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise Refused(f"{text[:200]!r} is not a URL.") from None
    if url.scheme not in {"https", "http"} or not url.host:
        raise Refused(f"{text[:200]!r} must begin with https://, and name a host.")
    if url.userinfo or url.fragment:
        raise Refused("A webhook's URL holds no password and no fragment; its deliveries are signed instead.")
    if not any(_matches(url.host, allowed) for allowed in settings.webhook_hosts):
        known = ", ".join(settings.webhook_hosts) or "nobody"
        raise Refused(f"{url.host} is not among BAKEOFF_WEBHOOK_HOSTS, which allows {known}.")
    return url


def _matches(host: str, allowed: str) -> bool:
    """`hooks.example.com` is itself; `.example.com` is every name under it."""
    return host.lower() == allowed.lower() or (allowed.startswith(".") and host.lower().endswith(allowed.lower()))


def post(settings: Settings, text: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Post, and return the status. Raises `Refused`, or `httpx.HTTPError` and `OSError` where nobody answers."""
    url = checked_url(settings, text)
    address = _address_of(settings, url)
    host = url.netloc.decode("ascii")
    target = url.copy_with(host=str(address))
    with (
        httpx.Client(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client,
        client.stream(
            "POST",
            target,
            content=body,
            headers={**headers, "Host": host},
            extensions={"sni_hostname": url.host},  # the certificate must be the name's
        ) as response,
    ):
        return response.status_code  # what else it says is nobody's business


def _address_of(settings: Settings, url: httpx.URL) -> Address:
    """The address that a name leads to. Raises `Refused` where one of them is nobody's business."""
    port = url.port or (443 if url.scheme == "https" else 80)
    found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        ours = _within(address, settings.webhook_networks)
        if not ours and not is_public(address):
            raise Refused(f"{url.host} leads to {address}, which is no public address; see BAKEOFF_WEBHOOK_NETWORKS.")
        if url.scheme == "http" and not ours:
            raise Refused(f"{url.host} is reached over the internet; its URL must begin with https://.")
    return addresses[0]


def _within(address: Address, networks: Sequence[str]) -> bool:
    return any(address in ip_network(network) for network in networks)


def is_public(address: Address) -> bool:
    """Whether an address is somebody's on the internet: nothing private, local, reserved, or wrapped up in another."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in CARRIERS):
            return False
    return address.is_global and not address.is_multicast
