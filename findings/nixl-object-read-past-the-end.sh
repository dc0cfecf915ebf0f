#!/usr/bin/env bash
# NIXL's OBJ plugin, and reads that get less than they asked for.
#
# Expected: a transfer of which the store gives less than was asked for fails, as it does with NIXL's POSIX plugin (a file that is
# shorter), or says how much came. One that fails leaves the destination as it was.
# Happens: a read of 5,000 bytes of an object of 1,000 is DONE; the other 4,000 bytes are what they were. A query says that an object is
# there, not how long it is. A read of an object that is absent fails, with the store's error page in the destination.
# Known in nixl-cu12 1.5.1 with moto 5.2.5. src/tiers/nixl/objects.ts puts every value into a frame, and reads into memory of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip=(venv/bin/pip install --quiet --disable-pip-version-check)
"${pip[@]}" 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5
"${pip[@]}" --no-deps nixl-cu12==1.5.1 numpy==2.2.6
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true NIXL_LOG_LEVEL=FATAL

cat >read.py <<'PROGRAM'
import ctypes, importlib.metadata, os, sys, time
import boto3
from moto.server import ThreadedMotoServer
from nixl_cu12._api import nixl_agent, nixl_agent_config

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("nixl-cu12", "moto")), sep=", ")
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = "http://%s:%d" % server.get_host_and_port()
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
s3.create_bucket(Bucket="kv-cache")
s3.put_object(Bucket="kv-cache", Key="short", Body=b"x" * 1000)
with open("short", "wb") as file:
    file.write(b"x" * 1000)

agent = nixl_agent("one", nixl_agent_config(backends=[]))
agent.create_backend("OBJ", {"bucket": "kv-cache", "endpoint_override": endpoint, "scheme": "http", "region": "us-east-1"})
agent.create_backend("POSIX")
bytes_asked = 5000
memory = (ctypes.c_char * bytes_asked)()
agent.register_memory(agent.get_reg_descs([(ctypes.addressof(memory), bytes_asked, 0, "")], "DRAM"))


def read(kind, number, name):
    """What became of a read of 5,000 bytes into memory full of dots."""
    memory.raw = b"." * bytes_asked
    remote = agent.register_memory(agent.get_reg_descs([(0, bytes_asked, number, name)], kind))
    local = agent.get_xfer_descs([(ctypes.addressof(memory), bytes_asked, 0)], "DRAM")
    handle = agent.initialize_xfer("READ", local, remote.trim(), "one")
    try:
        state = agent.transfer(handle)
        while state == "PROC":
            time.sleep(0.001)
            state = agent.check_xfer_state(handle)
    except Exception:
        state = "ERR"
    return state


facts = []


def fact(what, expected, happened, known):
    print(f"{what}: expected {expected}, happened {happened}")
    facts.append(happened == known)


file = os.open("short", os.O_RDONLY)
fact("POSIX reads 5,000 bytes of a file of 1,000", "ERR", read("FILE", file, ""), "ERR")
fact("OBJ reads 5,000 bytes of an object of 1,000", "ERR", read("OBJ", 1, "short"), "DONE")
fact("and the bytes behind it are", "not given as read", memory.raw[999:1002].decode(), "x..")
[answer] = agent.query_memory([(0, 0, 2, "short")], "OBJ", mem_type="OBJ")
fact("a query says of the object", "its length", dict(answer) if answer is not None else None, {})
fact("OBJ reads an object that is absent", "ERR", read("OBJ", 3, "absent"), "ERR")
fact("and the memory begins with", ".....", memory.raw[:5].decode(), "<?xml")
known = all(facts)
print("as described" if known else "this has changed: look again")
sys.stdout.flush()
os._exit(0 if known else 1)
PROGRAM
venv/bin/python read.py 2>errors || { cat errors >&2; exit 1; }
