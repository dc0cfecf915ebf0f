"""
The embedded engine on a GPU beside llama-server of the same build: both alive, asked by turns.

    python3 bench/gpu/embedded_engine.py --libraries DIR --model FILE.gguf --json OUT.json

DIR is a build of llama.cpp with its shared libraries and llama-server (docs/gpu.md). Prompts are words that nobody has
asked for before, of a vocabulary as embedded_model.py makes it. Greedy, and no answer ends before its length.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
WORDS = range(259, 32000)
"""Of embedded_model.py's vocabulary."""
TOKENS_PER_WORD = 8.67
"""That a word takes of it, since it knows few of them."""
MEMORY = "16GiB"


@dataclass
class Answer:
    """What came of a request: times in seconds from its start."""

    first: float
    stamps: list[float]
    text: str
    report: dict[str, Any]
    """What Reprise says of it."""

    @property
    def gaps(self) -> list[float]:
        """Between one token and the next."""
        return [later - earlier for earlier, later in zip(self.stamps, self.stamps[1:], strict=False)]


@dataclass
class Server:
    """A server that can be ended and started again."""

    name: str
    command: list[str]
    port: int
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Resolves when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not answer: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """Does it say so?"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def end(self, how: signal.Signals) -> None:
        """Ends it and whatever it started."""
        if self.process is None:
            return
        os.killpg(self.process.pid, how)
        self.process.wait()
        self.process = None

    def ask(self, prompt: str, tokens: int = 4) -> Answer:
        """One streamed completion."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
        body |= {"stream_options": {"include_usage": True}, "cache_prompt": True}
        began = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{self.name} answered {response.status}: {response.read()[:500]!r}")
        stamps: list[float] = []
        text = ""
        report: dict[str, Any] = {}
        while line := response.readline():
            if not line.startswith(b"data:") or b"[DONE]" in line:
                continue
            event = json.loads(line[5:])
            report |= event.get("reprise", {})
            for choice in event.get("choices", []):
                if choice.get("text"):
                    stamps.append(time.monotonic() - began)
                    text += choice["text"]
        connection.close()
        return Answer(stamps[0], stamps, text, report)


def prompt_of(tokens: int, seed: int) -> str:
    """Words that take about so many tokens."""
    draw = random.Random(seed)
    return " ".join(f"w{draw.choice(WORDS)}" for _ in range(max(2, round(tokens / TOKENS_PER_WORD))))


def together(server: Server, count: int, prompt_tokens: int, answer_tokens: int, seed: int) -> dict[str, float]:
    """So many requests at the same time."""
    answers: list[Answer] = []
    ask = lambda i: answers.append(server.ask(prompt_of(prompt_tokens, seed + i), answer_tokens))  # noqa: E731
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    gaps = sorted(gap for answer in answers for gap in answer.gaps)
    return {
        "tokens_per_second": round(count * answer_tokens / seconds, 1),
        "first_token_ms": round(1000 * statistics.median(answer.first for answer in answers), 1),
        "gap_p50_ms": round(1000 * gaps[len(gaps) // 2], 2),
        "gap_p99_ms": round(1000 * gaps[int(len(gaps) * 0.99)], 2),
    }


class Bench:
    """Both servers, and what was measured."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        """Starts nothing."""
        self.options = options
        self.folder = folder
        self.figures: dict[str, Any] = {}
        self.servers: list[Server] = []

    def restart(self, how: signal.Signals, sequences: int, context: int) -> None:
        """Ends both and starts both; Reprise on what it left."""
        for server in self.servers:
            server.end(how)
        options = self.options
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REPRISE_")}
        paths = [str(options.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment["LD_LIBRARY_PATH"] = ":".join(paths)
        ours = [*options.reprise.split(), "serve", "--gpu", options.gpu]
        ours += ["--llama-lib", options.libraries] if options.gpu == "on" else []
        ours += ["--model", options.model, "--port", "8123", "--data-dir", self.folder / "data"]
        ours += ["--memory", MEMORY, "--disk", "30GiB", "--context", context, "--sequences", sequences]
        theirs = [options.libraries / "llama-server", "-m", options.model, "--port", "8124", "-ngl", "99", "-fa", "on"]
        theirs += ["-c", context * sequences, "-np", sequences, "--cache-ram", "16384", "--no-webui"]
        self.servers = [
            Server(name, [str(part) for part in command], port, self.folder / f"{name}.log", environment)
            for name, command, port in (("reprise", ours, 8123), ("llama-server", theirs, 8124))
        ]
        for server in self.servers:
            server.start()
            for seed in (1, 2):
                server.ask(prompt_of(options.scale(3000), seed))

    def record(self, part: str, figures: dict[str, Any]) -> None:
        """Keeps, prints and writes."""
        self.figures[part] = figures
        print(part, json.dumps(figures), flush=True)
        if self.options.json is not None:
            self.options.json.write_text(json.dumps(self.figures, indent=1) + "\n")

    def prompts(self) -> None:
        """First tokens: of a new prompt, of the same again, and after others took its sequence."""
        for tokens in map(self.options.scale, (2000, 8000, 32000)):
            texts = [prompt_of(tokens, 100 * tokens + i) for i in range(3)]
            rows: dict[str, dict[str, list[Answer]]] = {server.name: {} for server in self.servers}
            for text in texts:
                for server in self.servers:
                    rows[server.name].setdefault("cold", []).append(server.ask(text))
            for _ in range(5):
                for server in self.servers:
                    rows[server.name].setdefault("resident", []).append(server.ask(texts[-1]))
            for server in self.servers:
                for i in range(6):
                    server.ask(prompt_of(600, 7000 + i + tokens))
            time.sleep(1)
            for text in texts:
                for server in self.servers:
                    rows[server.name].setdefault("memory", []).append(server.ask(text))
            figures: dict[str, Any] = {name: medians(row) for name, row in rows.items()}
            figures["reprise, by its own clock"] = reported(rows["reprise"])
            self.record(f"first token after {tokens} tokens, ms", figures)

    def several(self, part: str, rounds: int, *load: int) -> None:
        """The same load on each, by turns."""
        count, prompt_tokens, answer_tokens = load
        seed = 1000 * (count + prompt_tokens)
        for server in self.servers:
            together(server, count, prompt_tokens, 20, seed - 100)  # nobody's first of its kind is measured
        figures: dict[str, list[dict[str, float]]] = {server.name: [] for server in self.servers}
        for turn in range(rounds):
            for server in self.servers if turn % 2 == 0 else self.servers[::-1]:
                figures[server.name].append(together(server, count, prompt_tokens, answer_tokens, seed + 100 * turn))
        self.record(part, figures)

    def crash(self, context: int) -> None:
        """First tokens after kill -9 of both."""
        texts = [prompt_of(self.options.scale(32000), 3_200_000 + i) for i in range(3)]
        for text in texts:
            self.servers[0].ask(text)
        time.sleep(5)
        self.restart(signal.SIGKILL, 4, context)
        firsts = {server.name: [round(1000 * server.ask(text).first, 1) for text in texts] for server in self.servers}
        self.record("first token after kill -9, ms", firsts)


def medians(row: dict[str, list[Answer]]) -> dict[str, float]:
    """Of the first tokens, in ms."""
    return {kind: round(1000 * statistics.median(a.first for a in answers), 1) for kind, answers in row.items()}


def reported(row: dict[str, list[Answer]]) -> dict[str, dict[str, float]]:
    """Medians of what Reprise says that it took, in ms."""
    times = ("ttft_ms", "prefill_ms", "load_ms")
    return {
        kind: {time: statistics.median(answer.report.get(time, 0) for answer in answers) for time in times}
        for kind, answers in row.items()
    }


def main() -> None:
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", default="prompts,answers,crash,sixteen")
    parser.add_argument("--reprise", default=f"node {ROOT / 'dist/cli/main.js'}", help="how Reprise is started")
    parser.add_argument("--gpu", default="on", help="for a trial of this script on a machine without a GPU: off")
    parser.add_argument("--share", type=float, default=1, help="of the prompts' lengths")
    options = parser.parse_args()
    options.scale = lambda tokens: max(16, round(tokens * options.share))
    parts = options.parts.split(",")
    folder = Path(tempfile.mkdtemp(prefix="reprise-bench-"))
    bench = Bench(options, folder)
    context = options.scale(40000)
    try:
        bench.restart(signal.SIGTERM, 4, context)
        if "prompts" in parts:
            bench.prompts()
        if "answers" in parts:
            for count in (1, 4):
                bench.several(f"{count} answers of 200 tokens", 3, count, 200, 200)
            bench.several("4 answers of 100 tokens after 4,000", 2, 4, options.scale(4000), 100)
        if "crash" in parts:
            bench.crash(context)
        if "sixteen" in parts:
            bench.restart(signal.SIGTERM, 16, options.scale(8000))
            bench.several("16 answers of 200 tokens", 3, 16, 200, 200)
            bench.several("16 answers of 100 tokens after 4,000", 3, 16, options.scale(4000), 100)
    finally:
        for server in bench.servers:
            server.end(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
