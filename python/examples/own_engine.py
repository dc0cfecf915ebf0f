"""An engine of your own behind Reprise: three calls, marked below.

The engine here is a toy whose state after each token is 32 bytes that depend on every token before it, and that takes
its time: what a KV cache is to a language model. Run it twice: the second run reads nothing.

    pip install numpy
    python own_engine.py [SOCKET]          (starts a cache of its own when no socket is given)
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import reprise


def read(tokens: list[int], known: np.ndarray) -> np.ndarray:
    """Reads `tokens` given the states of the first ones. Returns the states of all: [len(tokens), 32] of uint8."""
    states = np.zeros((len(tokens), 32), np.uint8)
    states[: len(known)] = known
    for position in range(len(known), len(tokens)):
        before = states[position - 1].tobytes() if position > 0 else b""
        digest = hashlib.sha256(before + str(tokens[position]).encode()).digest()
        states[position] = np.frombuffer(digest, np.uint8)
    return states


@dataclass
class Report:
    """What reading one prompt took."""

    prompt_tokens: int
    known_tokens: int
    states: np.ndarray


def run(socket: str, prompts: list[list[int]]) -> list[Report]:
    """Reads each prompt with the help of all that was read before, in this run or an earlier one."""
    reports = []
    with reprise.connect(
        socket=socket, model="toy-engine 1, SHA-256 states", dtype="uint8", token_shape=(32,), chunk_tokens=64
    ) as cache:
        for tokens in prompts:
            print(f"{cache.lookup(tokens).tokens} of {len(tokens)} tokens are known")  # 1. what is known?

            with cache.load(tokens) as loaded:  # 2. grab it
                known = np.zeros((loaded.hit_tokens, 32), np.uint8)
                for chunk in loaded.chunks:
                    known[chunk.first_token : chunk.first_token + chunk.tokens] = chunk.array
                if not loaded.is_held():  # the cache went while we copied
                    known = known[:0]

            states = read(tokens, known)
            cache.save(tokens, states)  # 3. save the rest
            reports.append(Report(len(tokens), len(known), states))
    return reports


if __name__ == "__main__":
    own = Path.home() / ".cache" / "reprise-own-engine"  # not the data directory of a server that you may have
    socket = sys.argv[1] if len(sys.argv) > 1 else str(reprise.start_cache(data_dir=own).socket_path)
    system = list(range(1000))
    for report in run(socket, [[*system, 5000 + question, 6000] for question in (1, 2, 3)]):
        print(f"{report.prompt_tokens} tokens, {report.known_tokens} of them known")
