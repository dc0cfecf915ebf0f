"""Mooncake's own client as bench/mooncake.ts measures it: python mooncake_tool.py PORT BYTES COUNT DEPTH, then a line for each run."""

import ctypes
import mmap
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from mooncake.store import MooncakeDistributedStore

port, size, count, depth = map(int, sys.argv[1:])
store = MooncakeDistributedStore()
setup = {
    "local_hostname": "127.0.0.1",
    "metadata_server": "P2PHANDSHAKE",
    "global_segment_size": "0",
    "local_buffer_size": "0",
    "protocol": "tcp",
    "rdma_devices": "",
    "master_server_addr": f"127.0.0.1:{port}",
}
if store.setup(setup) != 0:
    sys.exit("there is no master")
memory = mmap.mmap(-1, depth * size)
memory[:] = os.urandom(depth * size)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
if store.register_buffer(start, depth * size) != 0:
    sys.exit("the memory cannot be registered")


def move(what: str, names: list[str], place: int) -> None:
    """One value after the other, in a thread of its own."""
    for name in names:
        if what == "write":
            wanted, (result,) = 0, store.batch_put_from([name], [place], [size])
        else:
            wanted, (result,) = size, store.batch_get_into([name], [place], [size])
        if result != wanted:
            os._exit(1)


with ThreadPoolExecutor(depth) as threads:
    for line in sys.stdin:
        what, number = line.split()
        names = [f"tool:{number}:{i}" for i in range(count)]
        began, cpu = time.perf_counter(), time.process_time()
        if what == "latency":
            names = names[:20]
            move("read", names, start)
            print((time.perf_counter() - began) / len(names), flush=True)
            continue
        works = [threads.submit(move, what, names[i::depth], start + i * size) for i in range(depth)]
        for work in works:
            work.result()
        print(time.perf_counter() - began, time.process_time() - cpu, flush=True)
