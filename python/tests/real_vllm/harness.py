"""Real vLLM processes, and the prompts they are asked: about notes, so that the shipped model can answer them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]
sys.path[:0] = [str(REPOSITORY / "models" / "notes"), str(REPOSITORY / "bench" / "gpu")]

import notes  # noqa: E402

#: Where the model lies as vLLM reads it; .ci/run makes it with models/to-huggingface.py.
MODEL = Path(os.environ.get("HF_MODEL_FOLDER", REPOSITORY / ".cache" / "reprise-22m-hf"))
BLOCK_TOKENS = 32
#: Threads that wait by spinning cost tenfold on a machine whose cores are shared.
_quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def environment() -> dict[str, str]:
    """What a vLLM process finds in its environment."""
    paths = [str(REPOSITORY / "python"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "VLLM_CPU_KVCACHE_SPACE": "1", **_quiet}


def reprise(options: dict[str, Any], **other: Any) -> dict[str, Any]:
    """What `--kv-transfer-config` says of our connector."""
    return {
        "kv_connector": "RepriseConnector",
        "kv_connector_module_path": "reprise_vllm",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        # This machine may be busy: a late answer would be a miss, and these tests count hits.
        "kv_connector_extra_config": {"lookup_deadline_ms": 2000, "min_disk_tokens": 32, **options},
        **other,
    }


class Engine:
    """One vLLM process, which starts while others do. `options`: of the connector, or None for a vLLM without one;
    `variables`: more of its environment; `waited_bytes`: in place of `MOST_WAITED_BYTES`; `inside`: what its command
    begins with, of a host of its own; `settings`: of vLLM.
    """

    def __init__(
        self,
        *,
        options: dict[str, Any] | None = None,
        variables: dict[str, str] | None = None,
        waited_bytes: int | None = None,
        inside: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        settings = {
            "model": str(MODEL),
            "max_model_len": 4096,
            "block_size": BLOCK_TOKENS,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 512,
            "waited_bytes": waited_bytes,
            **settings,
        }
        if options is not None:
            settings["transfer"] = reprise(options)
        self.process = subprocess.Popen(
            [*inside, sys.executable, str(Path(__file__).with_name("engine_process.py")), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("SHOW_VLLM") else subprocess.DEVNULL,
            env={**environment(), **(variables or {})},
            text=True,
        )
        self._ready = False

    def ask(self, **what: Any) -> dict[str, Any]:
        """One question, one answer. The first waits until vLLM has started."""
        assert self.process.stdin is not None
        if not self._ready:
            self._answer()
            self._ready = True
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def generate(self, prompts: list[list[int]], **more: Any) -> dict[str, Any]:
        return self.ask(op="generate", prompts=prompts, **{"max_tokens": 12, **more})

    def reset(self) -> None:
        """Empties vLLM's own prefix cache, after all saves are through."""
        assert self.ask(op="reset")["reset"] is True

    def wait_until_idle(self) -> dict[str, Any]:
        """Waits until nothing is under way, and checks that nothing was kept."""
        state = self.ask(op="free")
        assert state["requests"] == 0
        assert state["free_blocks"] == state["all_blocks"] - 1, "every block came back (one is vLLM's own)"
        assert state["open_jobs"] == 0
        assert state["faults"] == {} and not state["off"]
        return state

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "vLLM has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Prompts:
    """Chats about notes, as token ids, with the answers that the model gives when it has read them right."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        self._distinct = 0

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def about_notes(self, seed: int, characters: int, count: int) -> list[tuple[list[int], str]]:
        """`count` prompts that share their notes and differ in the question at the end, with the right answers."""
        text, questions = notes.sample_notes(notes.Random(seed), characters)
        local = [question for question in questions if question.kind == "local"][:count]
        assert len(local) == count, f"notes of {characters} characters give {len(local)} questions"
        return [
            (self.encode(notes.render([("user", notes.ask(text, q.question))]) + "<|assistant|>\n"), q.answer)
            for q in local
        ]

    def sharing(self, seed: int, count: int, longest: int = 1500) -> list[list[int]]:
        """Prompts that share beginnings of random length, and go on differently."""
        rng = random.Random(seed)
        text, _ = notes.sample_notes(notes.Random(seed), longest * 5)
        base = self.encode(text)
        prompts = []
        for _ in range(count):
            self._distinct += 1
            other, _ = notes.sample_notes(notes.Random(10_000 + self._distinct), 600)
            prompts.append(
                base[: rng.randrange(1, min(longest, len(base)))] + self.encode(other)[: rng.randrange(1, 120)]
            )
        return prompts
