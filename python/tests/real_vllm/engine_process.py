"""A real vLLM in a process of its own, driven by JSON lines on its standard input and answering on its standard output.

{"op": "generate", "prompts": [[token ids] …], "max_tokens": 8, "salts": […], "abort": [indices],
 "adapters": [[name, number, folder] or null …], "params": [kv_transfer_params of any shape …]}
                         "exchange_after": steps until there are other weights, of that "scale", and caches are reset
{"op": "reset"}          empties vLLM's own prefix cache; "connector": true, and the connector's
{"op": "weights", "scale": 1.5}     other weights in the running engine
{"op": "sleep"}          and wakes again
{"op": "metrics"}        vLLM's Prometheus counters of the connector
{"op": "free"}           waits until no request is left, answers the blocks that are free
{"op": "quit"}
"""

import json
import os
import sys
import time
from collections import Counter
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
        from reprise_engine.scheduler import loads

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
        was_reset: list[bool] = []
        for i, tokens in enumerate(ask["prompts"]):
            prompt: dict[str, Any] = {"prompt_token_ids": tokens}
            if ask.get("salts"):
                prompt["cache_salt"] = ask["salts"][i]
            extra = {"kv_transfer_params": ask["params"][i]} if ask.get("params") else None
            sampling = SamplingParams(max_tokens=ask["max_tokens"], temperature=0, ignore_eos=True, extra_args=extra)
            adapter = ask["adapters"][i] if ask.get("adapters") else None
            engine.add_request(str(i), prompt, sampling, lora_request=LoRARequest(*adapter) if adapter else None)
        steps = 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                outputs[output.request_id] = output
                if output.finished:
                    finished[output.request_id] = output
            steps += 1
            if steps == ask.get("exchange_after"):
                exchange(ask["scale"])
                was_reset.append(llm.reset_prefix_cache(reset_running_requests=True, reset_connector=True))
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
            "handed_over": [
                finished[str(i)].kv_transfer_params if str(i) in finished else None for i in range(len(ask["prompts"]))
            ],
            "why": [output.outputs[0].finish_reason for output in finished.values()],
            "reset": was_reset,
        }

    def exchange(scale: float) -> None:
        def scaled(model: Any) -> None:
            for name, parameter in model.named_parameters():
                if "input_layernorm" in name:
                    parameter.data.mul_(scale)

        llm.apply_model(scaled)

    def guests() -> list[Any]:
        """Of our connectors, one or several."""
        connector = core.scheduler.get_kv_connector()
        ours = getattr(connector, "_connectors", [connector])
        return [one for one in ours if type(one).__name__ == "RepriseConnector"]

    def drain() -> dict[str, Any]:
        """Steps until saves are through, as a serving engine does."""
        until = time.monotonic() + 20
        # Those whose blocks another engine is to fetch are over and still there.
        while (core.scheduler.has_requests() or core.scheduler.requests) and time.monotonic() < until:
            core.step_fn()
        sides = [one._guest.side for one in guests() if one._guest is not None and one._guest.side is not None]
        while any(side.open_jobs for side in sides) and time.monotonic() < until:
            core.step_fn()
        pool = core.scheduler.kv_cache_manager.block_pool
        return {
            "requests": len(core.scheduler.requests),
            "free_blocks": pool.get_num_free_blocks(),
            "all_blocks": pool.num_gpu_blocks,
            "open_jobs": sum(side.open_jobs for side in sides),
            "faults": {hook: count for one in guests() for hook, count in one.faults.items()},
            "off": any(one.switched_off for one in guests()),
            "counters": sum((Counter(one._guest.counters.all()) for one in guests() if one._guest), Counter()),
            "reuses": bool(guests()) and len(sides) == len(guests()),
        }

    def reply(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    def metrics() -> dict[str, Any]:
        """The lines of /metrics that are ours, with their labels, and what vLLM counts as external hits itself."""
        from prometheus_client import generate_latest

        lines = [line for line in generate_latest().decode().splitlines() if line.startswith("vllm:reprise_")]
        return {
            "scraped": dict(line.rsplit(" ", 1) for line in lines),
            "read": {one.name: one.value for one in llm.get_metrics() if one.name.startswith("vllm:reprise_")},
            "external": {one.name: one.value for one in llm.get_metrics() if "external_prefix_cache" in one.name},
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
            reply({"reset": llm.reset_prefix_cache(reset_connector=ask.get("connector", False))})
        elif ask["op"] == "weights":
            exchange(ask["scale"])
            reply({})
        elif ask["op"] == "sleep":
            llm.sleep(1)
            llm.wake_up()
            reply({})
    # vLLM's own shutdown takes seconds and tells nothing here.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
