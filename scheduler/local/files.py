"""Small files that one machine's servers remember things in: secrets, ports, locks."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import socket
import tempfile
from pathlib import Path

# Below the range that the kernel takes for outgoing connections, or a remembered port would often be taken.
_PORTS = range(20000, 32000)


def make_folder(folder: Path) -> Path:
    """Create a folder of our own, closed to others.

    As root it can be passed through (not listed), because the servers then run as another user.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only: a reader sees the old text or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def stored_secret(path: Path) -> str:
    """The secret in this file; generated once, with nothing in it that an address would have to quote."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        secret = ""
    if not secret:
        secret = secrets.token_urlsafe(32)
        write_private(path, secret + "\n")
    return secret


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server can listen on this port of this address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return False
    return True


def http_url(host: str, port: int) -> str:
    """The address of a server, for people and clients."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def answers(address: tuple[str, int]) -> bool:
    """Whether somebody listens at this address."""
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this address that nobody listens on."""
    for port in random.sample(_PORTS, 200):
        if port_is_free(port, host):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remembered_port(path: Path, preferred: int = 0, host: str = "127.0.0.1") -> int:
    """The preferred port, or the one in this file, whichever is free; otherwise another, which the file remembers."""
    if preferred and port_is_free(preferred, host):
        return preferred
    try:
        port = int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        port = 0
    if not (0 < port < 65536 and port_is_free(port, host)):
        port = free_port(host)
        write_private(path, f"{port}\n")
    return port


def try_lock(path: Path) -> int | None:
    """Lock a file as long as this process lives; returns the open file, or None when another process has it.

    The kernel lets go of it when the process ends, however it ends.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
