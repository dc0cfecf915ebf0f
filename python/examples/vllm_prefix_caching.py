"""Four questions about one long text, asked of two vLLM processes: the second has nothing to read.

    reprise cache &                                      # or --autostart
    python examples/vllm_prefix_caching.py --model MODEL

After vLLM's own offline example of prefix caching: a shared prefix, four prompts, temperature 0, with and without. Here
"with" is a process that has never seen the text. Exits 1 when an answer differs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

PREFIX = (
    "You look after a lighthouse. What follows is the keeper's book of the last two weeks; answer from it, in one "
    "sentence, and say so when it is not in there.\n\n"
    + "\n".join(
        f"Day {day}: wind {3 + day * 7 % 9}, {'fog until noon' if day % 3 == 0 else 'clear'}; {2 + day * 5 % 6} ships "
        f"passed, the lamp took {11 + day * 3 % 7} litres of oil; the keeper {what}."
        for day, what in enumerate(
            ["painted the stairs", "mended a net", "wrote letters", "cleaned the lens", "slept badly", "counted seals"]
            * 2,
            start=1,
        )
    )
    + "\n\nQuestion: "
)
PROMPTS = (
    "On which days was there fog?",
    "What did the keeper do on day 4?",
    "How much oil did the lamp take on day 7?",
    "When did most ships pass?",
)


def answer(model: str, connector: dict[str, Any] | None) -> dict[str, Any]:
    """One vLLM, in this process: what it answers, what it did not have to read, and how long it took."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    transfer: dict[str, Any] = {}
    if connector is not None:
        transfer["kv_transfer_config"] = {
            "kv_connector": "RepriseConnector",
            "kv_connector_module_path": "reprise_vllm",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": connector,
        }
    llm = LLM(model=model, max_model_len=2048, block_size=32, enforce_eager=True, dtype="float32", **transfer)
    sampling = SamplingParams(temperature=0.0, max_tokens=16)
    outputs = []
    began = time.perf_counter()
    for prompt in PROMPTS:  # one by one: a batch of another shape may differ in the last bits
        outputs += llm.generate([PREFIX + prompt], sampling, use_tqdm=False)
    return {
        "answers": [output.outputs[0].text for output in outputs],
        "reused": [output.num_cached_tokens or 0 for output in outputs],
        "tokens": [len(output.prompt_token_ids or ()) for output in outputs],
        "seconds": time.perf_counter() - began,
    }


def in_a_process(arguments: argparse.Namespace, connector: dict[str, Any] | None) -> dict[str, Any]:
    """`answer` in a process of its own."""
    read, write = os.pipe()
    command = [
        sys.executable,
        __file__,
        "--model",
        arguments.model,
        "--child",
        json.dumps(connector),
        "--out",
        str(write),
    ]
    with subprocess.Popen(command, pass_fds=[write], stdout=sys.stderr) as process:
        os.close(write)
        with os.fdopen(read) as result:
            text = result.read()
    if process.returncode != 0:
        sys.exit(f"vLLM ended with {process.returncode}")
    told: dict[str, Any] = json.loads(text)
    return told


def main() -> None:
    """Three processes: without a connector, the first with it, the second with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model's folder or name")
    parser.add_argument("--socket", default="", help="the cache's socket, if it is not the usual one")
    parser.add_argument("--autostart", action="store_true", help="start the cache when there is none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        told = answer(arguments.model, json.loads(arguments.child))
        with os.fdopen(arguments.out, "w") as out:
            json.dump(told, out)
        return
    # Patient on purpose: on a busy machine a late answer would be a miss, and this example shows hits.
    connector = {"socket": arguments.socket, "autostart": arguments.autostart, "lookup_deadline_ms": 2000}
    arms = {
        "vLLM alone": in_a_process(arguments, None),
        "first process": in_a_process(arguments, connector),
        "second process": in_a_process(arguments, connector),
    }
    for name, arm in arms.items():
        print(f"{name}: reused {sum(arm['reused'])} of {sum(arm['tokens'])} tokens, {arm['seconds']:.2f} s")
    expected = arms["vLLM alone"]["answers"]
    same = all(arm["answers"] == expected for arm in arms.values())
    print("the answers are the same" if same else "the answers differ")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
