#!/usr/bin/env bash
# Mooncake Store: what a client answers when its master is gone.
#
# Expected: a question that could not be asked has another answer than one that was answered with "there is none".
# Happens: of keys that are not there and of a master that is not there, batch_get_replica_desc says the same, {}, and get_batch the same, b"".
# batch_is_exist and batch_get_into tell them apart (0 and -704 against -900).
# Known in mooncake-transfer-engine-non-cuda 0.3.13.post1. python/reprise_mooncake/values.py asks both.
# Needs libibverbs1 of Debian.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mooncake-transfer-engine-non-cuda==0.3.13.post1

cat >away.py <<'PROGRAM'
import ctypes
import importlib.metadata
import mmap
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import mooncake
from mooncake.store import MooncakeDistributedStore

print("mooncake-transfer-engine-non-cuda", importlib.metadata.version("mooncake-transfer-engine-non-cuda"))
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
rpc, metrics = (each.getsockname()[1] for each in ports)
for each in ports:
    each.close()
flags = ["--rpc_address=127.0.0.1", f"--rpc_port={rpc}", "--metrics_host=127.0.0.1", f"--metrics_port={metrics}"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
master = subprocess.Popen([Path(mooncake.__file__).parent / "mooncake_master", *flags], **quiet)
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", rpc)).close()
        break
    except OSError:
        time.sleep(0.1)

store = MooncakeDistributedStore()
size = 16 << 20
store.setup("127.0.0.1", "P2PHANDSHAKE", size, size, "tcp", "", f"127.0.0.1:{rpc}")
memory = mmap.mmap(-1, 4096)
place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
store.register_buffer(place, 4096)
if store.put("key", b"value") != 0 or store.get_batch(["key"]) != [b"value"]:
    sys.exit("Mooncake does not work here")


def answers(key: str) -> dict[str, object]:
    return {
        "batch_get_replica_desc": store.batch_get_replica_desc([key]),
        "get_batch": store.get_batch([key]),
        "batch_is_exist": store.batch_is_exist([key]),
        "batch_get_into": store.batch_get_into([key], [place], [4096]),
    }


absent = answers("absent")
master.kill()
master.wait()
away = answers("key")  # which is there
for name in absent:
    print(f"{name}: expected two answers, happened {absent[name]} of an absent key, {away[name]} without a master")
same = [name for name in absent if absent[name] == away[name]]
is_known = same == ["batch_get_replica_desc", "get_batch"]
print("as described" if is_known else "this has changed: look again", flush=True)
os._exit(0 if is_known else 1)
PROGRAM
GLOG_minloglevel=3 venv/bin/python away.py 2>/dev/null
