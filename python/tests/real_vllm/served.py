"""Real `vllm serve` processes and the example's proxy, on hosts of their own, and how a client there asks them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real_vllm.harness import BLOCK_TOKENS, environment

_proxy = Path(__file__).parents[2] / "examples" / "prefill_decode_proxy.py"


class Program:
    """A server that is ready when `/health` says so. `inside`: what its command begins with, of a host of its own."""

    def __init__(self, command: Sequence[str], url: str, inside: Sequence[str]) -> None:
        self.url = url
        self._process = subprocess.Popen(
            [*inside, *command],
            stdout=None if os.environ.get("SHOW_VLLM") else subprocess.DEVNULL,
            stderr=None if os.environ.get("SHOW_VLLM") else subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,  # vLLM's engine is a child of its own
        )

    def wait(self, client: Client, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while client.status(f"{self.url}/health") != 200:
            assert time.monotonic() < until and self._process.poll() is None, f"{self.url} did not start"
            time.sleep(0.5)

    def kill(self) -> None:
        """With all its processes, as when the machine fails."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def serve(model: Path, address: str, transfer: dict[str, Any], inside: Sequence[str]) -> Program:
    """A vLLM. `transfer`: what `--kv-transfer-config` says."""
    # What `vllm serve` runs: that command of the wheel for the CPU does not find its own version.
    vllm = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    sizes = ["--max-model-len", "4096", "--block-size", str(BLOCK_TOKENS), "--max-num-seqs", "8"]
    how = ["--enforce-eager", "--dtype", "float32", "--seed", "0", "--no-enable-prefix-caching"]
    where = ["--host", address, "--port", "8000", "--served-model-name", "notes"]
    config = ["--kv-transfer-config", json.dumps(transfer)]
    return Program([*vllm, *sizes, *how, *where, *config], f"http://{address}:8000", inside)


def proxy(prefill: Program, decode: Program, inside: Sequence[str]) -> Program:
    command = [sys.executable, str(_proxy), "--prefill", prefill.url, "--decode", decode.url]
    return Program(command, "http://127.0.0.1:8100", inside)


class Client:
    """Asks with curl, from a host of its own."""

    def __init__(self, inside: Sequence[str]) -> None:
        self._inside = inside

    def status(self, url: str) -> int:
        done = self._curl("-o", "/dev/null", "-w", "%{http_code}", url)
        return int(done.stdout or 0)

    def get(self, url: str) -> str:
        return self._curl(url).stdout

    def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.post_text(url, body))
        return answer

    def post_text(self, url: str, body: dict[str, Any]) -> str:
        done = self._curl("-H", "Content-Type: application/json", "--data-binary", "@-", url, body=json.dumps(body))
        assert done.returncode == 0, done
        return done.stdout

    def tokens(self, url: str, prompt: list[int], **more: Any) -> list[int]:
        """The answer to a prompt of token ids."""
        asked = {"model": "notes", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        answer = self.post(f"{url}/v1/completions", {**asked, "return_token_ids": True, **more})
        assert "choices" in answer, answer
        tokens: list[int] = answer["choices"][0]["token_ids"]
        return tokens

    def metric(self, url: str, name: str) -> float:
        lines = [line for line in self.get(f"{url}/metrics").splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def _curl(self, *words: str, body: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [*self._inside, "curl", "--silent", "--max-time", "120", *words]
        return subprocess.run(command, input=body, check=False, capture_output=True, text=True)
