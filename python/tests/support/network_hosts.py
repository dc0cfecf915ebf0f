"""Hosts of the tests' own: network namespaces on a bridge. Needs root and iproute2; as test/support/hosts.ts."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator


def hosts_can_be_made() -> bool:
    """False where there is no root, no iproute2 or no permission."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"reprise-{secrets.token_hex(4)}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    if made:
        _ip("netns", "delete", name)
    return made


class NetworkHosts:
    def __init__(self, *names: str) -> None:
        self._names = names
        self._id = secrets.token_hex(2)

    def address(self, host: str) -> str:
        return f"10.97.0.{self._names.index(host) + 1}"

    def inside(self, host: str) -> list[str]:
        """What a command begins with that is to run there."""
        return ["ip", "netns", "exec", self._namespace(host)]

    def connect(self, host: str, *, up: bool) -> None:
        """Takes a host off the network, or puts it back."""
        port = f"port{self._names.index(host)}"
        _ip("-n", self._namespace("switch"), "link", "set", port, "up" if up else "down")

    def make(self) -> None:
        switch = self._namespace("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for i, host in enumerate(self._names):
            here, port = self._namespace(host), f"port{i}"
            _ip("netns", "add", here)
            pair = ("type", "veth", "peer", "name", "eth0", "netns", here)
            _ip("-n", switch, "link", "add", port, *pair)
            _ip("-n", switch, "link", "set", port, "master", "bridge")
            _ip("-n", switch, "link", "set", port, "up")
            _ip("-n", here, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _ip("-n", here, "link", "set", "eth0", "up")
            _ip("-n", here, "link", "set", "lo", "up")

    def delete(self) -> None:
        for name in (*self._names, "switch"):
            subprocess.run(["ip", "netns", "delete", self._namespace(name)], check=False, capture_output=True)

    def _namespace(self, host: str) -> str:
        return f"reprise-{self._id}-{host}"


@contextlib.contextmanager
def network_hosts(*names: str) -> Iterator[NetworkHosts]:
    hosts = NetworkHosts(*names)
    try:
        hosts.make()
        yield hosts
    finally:
        hosts.delete()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
