"""Two hosts, each with its own cache, which find each other's texts: in a real Valkey, or in each other's caches."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from support.cache_process import Cache
from support.network_hosts import NetworkHosts, network_hosts

Tier = Literal["valkey", "peer"]
_valkey = os.environ.get("REPRISE_TEST_VALKEY") or shutil.which("valkey-server") or "redis-server"
_peer_port = 7000


@dataclass
class TwoHosts:
    network: NetworkHosts
    #: Of the hosts "a" and "b".
    a: Cache
    b: Cache
    #: Where there is one.
    store: subprocess.Popen[bytes] | None

    def stop_answering(self) -> None:
        """The store, or the cache of the other host, hangs."""
        self._signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, name: signal.Signals) -> None:
        (self.store or self.a.process).send_signal(name)


@contextlib.contextmanager
def two_hosts(tier: Tier, *others: str) -> Iterator[TwoHosts]:
    """Hosts "a" and "b", and further ones without a cache."""
    folder = Path(tempfile.mkdtemp(prefix="reprise-"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        network = ends.enter_context(network_hosts("a", "b", "store", *others))
        store = None
        if tier == "valkey":
            store = _start_valkey(network)
            ends.callback(_end, store)
            flags = {host: ["--tier", f"valkey://{network.address('store')}:6379"] for host in "ab"}
        else:
            flags = _as_peers(network, folder)
        a, b = (Cache(folder / host, flags=flags[host], inside=network.inside(host)) for host in "ab")
        ends.callback(a.kill)
        ends.callback(b.kill)
        yield TwoHosts(network, a, b, store)


def _start_valkey(network: NetworkHosts) -> subprocess.Popen[bytes]:
    server = [_valkey, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--port", "6379"]
    store = subprocess.Popen([*network.inside("store"), *server], stdout=subprocess.DEVNULL, cwd="/")
    until = time.monotonic() + 20
    ping = [*network.inside("store"), "redis-cli", "ping"]
    while subprocess.run(ping, check=False, capture_output=True).stdout.strip() != b"PONG":
        assert time.monotonic() < until and store.poll() is None, "the store did not start"
        time.sleep(0.05)
    return store


def _as_peers(network: NetworkHosts, folder: Path) -> dict[str, list[str]]:
    """Each reads from the other, over TLS and with a token."""
    token = folder / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    flags: dict[str, list[str]] = {"a": [], "b": []}
    for host, other in (("a", "b"), ("b", "a")):
        address = network.address(host)
        key, certificate = folder / f"{host}.key", folder / f"{host}.pem"
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        about = ["-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=IP:{address}"]
        subprocess.run([*new, *about, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
        key.chmod(0o600)
        flags[host] += ["--listen", f"{address}:{_peer_port}", "--listen-cert", str(certificate)]
        flags[host] += ["--listen-key", str(key), "--token-file", str(token)]
        flags[other] += ["--tier", f"peer://{address}:{_peer_port}?ca={certificate}&token-file={token}"]
    return flags


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
