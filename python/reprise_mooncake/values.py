"""Mooncake's client, with one answer for each value that is asked for: its length, or why there is none.

A put of a name that is there says that it worked and keeps the old value, so values are written with `upsert`, which
replaces it in place: to a reader in between there is none, or some bytes of each. A get says how long the value is also
where there is more room, and refuses where there is less.
"""

import ctypes
import mmap
import os
import socket
from typing import Any

from reprise_mooncake.messages import Gather, Move, Opening

#: Results that are none of Mooncake's: there is no such value to be had; it did not fit, and may be asked for again.
NONE = -1
NO_ROOM = -2
#: Mooncake's codes from here down to the second say that the master was not reached.
_RPC_FAILED, _RPC_LAST = -900, -999


class AwayError(Exception):
    """Mooncake cannot be used now."""


class Memory:
    """Memory that was inherited as an open file."""

    def __init__(self, file: int) -> None:
        self.bytes = os.fstat(file).st_size
        self._map = mmap.mmap(file, self.bytes)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))


class Values:
    """Values in a pool of Mooncake's. Its methods may be called by several threads."""

    def __init__(self, store: Any, memory: Memory) -> None:
        """
        Args:
            store: A MooncakeDistributedStore that is not set up.
            memory: Where values come from and go to.
        """
        self._store = store
        self._memory = memory

    def connect(self, opening: Opening) -> None:
        """Waits until the master has answered. Raises AwayError."""
        code = self._store.setup(
            {
                "local_hostname": opening.host or own_address(opening.master),
                "metadata_server": opening.metadata,
                "global_segment_size": str(opening.segment),
                "local_buffer_size": "0",  # values go to and from our own memory
                "protocol": opening.protocol,
                "rdma_devices": opening.device,
                "master_server_addr": opening.master,
            }
        )
        if code != 0:
            raise AwayError(f"its client cannot be set up (code {code})")
        code = self._store.register_buffer(self._memory.address, self._memory.bytes)
        if code != 0:
            raise AwayError(f"its client does not take our memory (code {code})")

    def move(self, request: Move) -> list[int]:
        """One length or code of Mooncake's for each value."""
        places = [self._memory.address + at for at in request.at]
        if request.is_put:
            return list(self._store.batch_upsert_from(request.names, places, request.bytes))
        return list(self._store.batch_get_into(request.names, places, request.bytes))

    def gather(self, request: Gather) -> list[int]:
        """Lengths of values that lie one behind the other, NONE or NO_ROOM; one code for all without the master."""
        lengths, fault = self._lengths(request.names)
        if fault is not None:
            return [fault] * len(request.names)
        results: list[int] = []
        wanted: list[tuple[int, str, int]] = []
        place, left = self._memory.address + request.at, request.bytes
        for name, length in zip(request.names, lengths, strict=True):
            if not 0 < length <= request.most:
                results.append(NONE)
            elif length > left:
                results.extend([NO_ROOM] * (len(request.names) - len(results)))
                break
            else:
                wanted.append((len(results), name, place))
                results.append(length)
                place, left = place + length, left - length
        if not wanted:
            return results
        names, places = [name for _, name, _ in wanted], [place for _, _, place in wanted]
        outcomes = self._store.batch_get_into(names, places, [results[i] for i, _, _ in wanted])
        fault = next((outcome for outcome in outcomes if is_rpc_failure(outcome)), None)
        if fault is not None:
            return [fault] * len(request.names)
        place = self._memory.address + request.at
        for (i, _, source), outcome in zip(wanted, outcomes, strict=True):
            if outcome != results[i]:  # it has gone meanwhile, or has another length: the next one lies in its place
                results[i] = NONE
                continue
            if place != source:
                ctypes.memmove(place, source, outcome)
            place += outcome
        return results

    def close(self) -> None:
        """Takes leave of the master, which then knows at once that what lay here is gone."""
        self._store.close()

    def _lengths(self, names: list[str]) -> tuple[list[int], int | None]:
        """NONE for what there is not; or the code that says that the master was not reached."""
        found = self._store.batch_get_replica_desc(names)
        absent = [name for name in names if not found.get(name)]
        # A master that does not answer and one that has nothing look alike there.
        outcomes = self._store.batch_is_exist(absent) if absent else []
        fault = next((outcome for outcome in outcomes if outcome < 0), None)
        return [self._length(name, found.get(name)) for name in names], fault

    def _length(self, name: str, replicas: Any) -> int:
        if not replicas:
            return NONE
        memory = next((each for each in replicas if each.is_memory_replica()), None)
        size = self._store.get_size(name) if memory is None else memory.get_memory_descriptor().buffer_descriptor.size
        return int(size)


def is_rpc_failure(code: int) -> bool:
    """The master was not reached, or did not answer."""
    return _RPC_LAST <= code <= _RPC_FAILED


def own_address(master: str) -> str:
    """The address of this host that the master sees. Raises AwayError."""
    host, port = split(master)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise AwayError(str(error)) from error


def split(master: str) -> tuple[str, int]:
    """Host and port, of an IPv6 address without its brackets."""
    host, _, port = master.rpartition(":")
    return host.strip("[]"), int(port)
