"""A real vLLM in a process of its own, driven by JSON lines on its standard input and answering on its standard output.

{"op": "generate", "prompts": [[token ids] …], "max_tokens": 8, "salts": […], "abort": [indices],
 "adapters": [[name, number, folder] or null …]}
{"op": "reset"}          empties vLLM's own prefix cache
{"op": "metrics"}        vLLM's Prometheus counters of the connector
{"op": "free"}           waits until no request is left, answers the blocks that are free
{"op": "quit"}
"""

import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main() -> None:  # noqa: PLR0915 (one engine, one process)
    # vLLM prints on standard output: answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig
    from vllm.lora.request import LoRARequest

    settings: dict[str, Any] = json.loads(sys.argv[1])
    waited_bytes = settings.pop("waited_bytes", None)
    if waited_bytes is not None:
        from reprise_vllm import loads

        loads.MOST_WAITED_BYTES = waited_bytes
    transfer = settings.pop("transfer", None)
    if transfer is not None:
        settings["kv_transfer_config"] = KVTransferConfig(**transfer)
    settings = {"enforce_eager": True, "dtype": "float32", "seed": 0, "disable_log_stats": True, **settings}
    llm = LLM(**settings)
    engine = llm.llm_engine
    core = engine.engine_core.engine_core

    def generate(ask: dict[str, Any]) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        finished: dict[str, Any] = {}
        aborted = set(ask.get("abort", []))
        for i, tokens in enumerate(ask["prompts"]):
            prompt: dict[str, Any] = {"prompt_token_ids": tokens}
            if ask.get("salts"):
                prompt["cache_salt"] = ask["salts"][i]
            sampling = SamplingParams(max_tokens=ask["max_tokens"], temperature=0, ignore_eos=True)
            adapter = ask["adapters"][i] if ask.get("adapters") else None
            engine.add_request(str(i), prompt, sampling, lora_request=LoRARequest(*adapter) if adapter else None)
        steps = 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                outputs[output.request_id] = output
                if output.finished:
                    finished[output.request_id] = output
            steps += 1
            for i in [i for i in aborted if steps > 1 + i % 5]:
                aborted.discard(i)
                engine.abort_request([str(i)])
        return {
            "tokens": [
                list(finished[str(i)].outputs[0].token_ids) if str(i) in finished else None
                for i in range(len(ask["prompts"]))
            ],
            "cached": [
                (outputs[str(i)].num_cached_tokens or 0) if str(i) in outputs else 0 for i in range(len(ask["prompts"]))
            ],
        }

    def drain() -> dict[str, Any]:
        """Steps until saves are through, as a serving engine does."""
        until = time.monotonic() + 20
        while core.scheduler.has_requests() and time.monotonic() < until:
            core.step_fn()
        connector = core.scheduler.get_kv_connector()
        guest = getattr(connector, "_guest", None)
        side = getattr(guest, "side", None)
        while side is not None and side.open_jobs and time.monotonic() < until:
            core.step_fn()
        pool = core.scheduler.kv_cache_manager.block_pool
        return {
            "requests": len(core.scheduler.requests),
            "free_blocks": pool.get_num_free_blocks(),
            "all_blocks": pool.num_gpu_blocks,
            "open_jobs": 0 if side is None else side.open_jobs,
            "faults": getattr(connector, "faults", {}),
            "off": getattr(connector, "switched_off", False),
            "counters": {} if guest is None else guest.counters.all(),
            "reuses": side is not None,
        }

    def reply(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    def metrics() -> dict[str, Any]:
        """The lines of /metrics that are ours, with their labels."""
        from prometheus_client import generate_latest

        lines = [line for line in generate_latest().decode().splitlines() if line.startswith("vllm:reprise_")]
        return {
            "scraped": dict(line.rsplit(" ", 1) for line in lines),
            "read": {one.name: one.value for one in llm.get_metrics() if one.name.startswith("vllm:reprise_")},
        }

    reply({"ready": True})
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["op"] == "quit":
            break
        if ask["op"] == "generate":
            reply(generate(ask))
        elif ask["op"] == "free":
            reply(drain())
        elif ask["op"] == "metrics":
            reply(metrics())
        elif ask["op"] == "reset":
            drain()
            reply({"reset": llm.reset_prefix_cache()})
    # vLLM's own shutdown takes seconds and tells nothing here.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
