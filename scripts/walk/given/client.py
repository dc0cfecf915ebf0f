"""What docs/python.md takes as given: a text, and KV of an engine of somebody's own. What the first run has saved, the second loads."""

import atexit
import os

import torch

tokens = list(range(1000, 1600))
computed = torch.arange(len(tokens) * 32 * 2 * 8 * 128, dtype=torch.int32).bitwise_and_(0x3F7F).to(torch.int16)
computed = computed.view(torch.bfloat16).view(len(tokens), 32, 2, 8, 128)
my_kv = computed.clone() if os.environ["WALK_TIME"] == "first" else torch.zeros_like(computed)


@atexit.register
def _all_of_it_is_there() -> None:
    if not torch.equal(my_kv, computed):
        print("the second run has not loaded what the first has saved")
        os._exit(1)


__all__ = ["my_kv", "tokens"]
