"""train.py DATA OUT --seconds N: trains the small Llama on one GPU for a fixed time.

OUT gets checkpoint.pt (all that is needed to go on: run the same command again) and, for export.py, bf16 weights in
four parts and run.json. Without a GPU it trains a toy, to try every step.
"""

import argparse
import json
import multiprocessing
import os
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from evaluate import exact_match, questions_about
from llama import TOY, Llama, Shape
from muon import Muon
from stream import LONG_ROW, SHORT_ROW, Stream
from tokenizers import Tokenizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOY_RUN = DEVICE == "cpu"
ROWS = (256, 512) if TOY_RUN else (SHORT_ROW, LONG_ROW)
BATCH_TOKENS = 2048 if TOY_RUN else 98_304
EVAL_TOKENS = {200: 8} if TOY_RUN else {500: 128, 2000: 128, 6000: 64}  # length of the notes: documents
WARM_UP_STEPS = 100
WEIGHT_PARTS = 4


def main():
    options = parse_options()
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)

    progress = multiprocessing.Value("d", 0.0, lock=False)
    batches = open_stream(options, progress)
    run = Run(options, progress)
    if (out / "checkpoint.pt").exists():
        run.load(out / "checkpoint.pt")
    run.compile()
    train(run, batches, out)
    run.save(out / "checkpoint.pt")
    run.export(out, run.evaluate())


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with tokenizer.json and prose.bin")
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, required=True, help="training time, compilation not counted")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eval-every", type=float, default=40, help="seconds")
    return parser.parse_args()


def open_stream(options, progress):
    """Batches from worker processes. A resumed run reads on from other seeds, so that it meets new chats."""
    told = Path(options.out) / "run.json"
    steps = json.loads(told.read_text())["steps"] if told.exists() else 0
    stream = Stream(options.data, BATCH_TOKENS, progress, options.seed + steps, ROWS)
    loader = torch.utils.data.DataLoader(
        stream, batch_size=None, num_workers=options.workers, prefetch_factor=3, pin_memory=DEVICE == "cuda"
    )
    return iter(loader)


def train(run, batches, out):
    """Steps until the time is up; reports every 10 s, evaluates and saves every so often."""
    reported = evaluated = run.elapsed
    began, before, reported_tokens = time.monotonic(), run.elapsed, run.tokens
    paused = waited = 0.0
    while True:
        run.elapsed = before + time.monotonic() - began - paused
        if run.elapsed >= run.options.seconds:
            return
        run.set_rates()
        wait = time.monotonic()
        ids, weights = next(batches)
        waited += time.monotonic() - wait
        loss = run.backward(ids, weights)
        run.step()
        run.tokens += ids.numel()

        if run.elapsed - reported >= 10:
            speed = (run.tokens - reported_tokens) / (run.elapsed - reported) / 1e6
            print(
                f"{run.elapsed:5.0f} s  step {run.steps}  {run.tokens / 1e6:.0f} M tokens  {speed:.2f} M/s  "
                f"row {ids.shape[1] - 1}  loss {loss.item():.3f}  waited {waited:.1f} s",
                flush=True,
            )
            reported, reported_tokens, waited = run.elapsed, run.tokens, 0.0
        if run.elapsed - evaluated >= run.options.eval_every:
            pause = time.monotonic()
            found = run.evaluate()
            run.save(out / "checkpoint.pt")
            run.export(out, found)
            paused += time.monotonic() - pause
            evaluated = run.elapsed


class Run:
    """A model in training: its weights, its optimizers, and how far it is."""

    def __init__(self, options, progress):
        self.options, self.progress = options, progress
        self.shape = TOY if TOY_RUN else Shape()
        self.model = Llama(self.shape).to(DEVICE)
        inside = [p for p in self.model.layers.parameters() if p.dim() == 2]
        norms = [p for p in self.model.parameters() if p.dim() == 1]
        embedding = [self.model.embed_tokens.weight]
        self.muon = Muon(inside, lr=options.lr)
        self.adam = torch.optim.AdamW(
            [{"params": embedding, "weight_decay": 0.01}, {"params": norms, "weight_decay": 0.0}],
            lr=options.lr,
            betas=(0.9, 0.95),
            fused=DEVICE == "cuda",
        )
        self.tokens = self.steps = 0
        self.elapsed = 0.0
        self.loss = {row: self.model.loss for row in ROWS}
        tokenizer = Tokenizer.from_file(str(Path(options.data) / "tokenizer.json"))
        self.questions = {n: questions_about(tokenizer, n, documents) for n, documents in EVAL_TOKENS.items()}
        print(f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters on {DEVICE}", flush=True)

    def compile(self):
        """Compiles the loss for each row length before the clock starts; a length that does not compile runs eagerly.

        `dynamic=False` compiles one graph a length: with dynamic shapes the compiler failed at the second length.
        """
        if DEVICE == "cpu":
            return
        for row in ROWS:
            began = time.monotonic()
            ids = torch.zeros((BATCH_TOKENS // row, row + 1), dtype=torch.int32)
            self.loss[row] = torch.compile(self.model.loss, dynamic=False)
            try:
                self.backward(ids, torch.ones(ids.shape))
            except Exception as error:  # the compiler's failures have no common type, and training can do without
                print(f"row {row} runs eagerly, it did not compile: {str(error)[:2000]}", flush=True)
                self.loss[row] = self.model.loss
            self.model.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            print(f"row {row} ready after {time.monotonic() - began:.0f} s", flush=True)

    def set_rates(self):
        """Warm-up, then constant, then a straight line to nothing over the last two thirds of the time."""
        fraction = self.elapsed / self.options.seconds
        self.progress.value = fraction
        rate = self.options.lr * min(1, (self.steps + 1) / WARM_UP_STEPS, max(0.01, (1 - fraction) / 0.67))
        for group in self.muon.param_groups + self.adam.param_groups:
            group["lr"] = rate

    def backward(self, ids, weights):
        ids, weights = ids.to(DEVICE, non_blocking=True).long(), weights.to(DEVICE, non_blocking=True)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = self.loss[ids.shape[1] - 1](ids, weights)
        loss.backward()
        return loss.detach()

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step()
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.steps += 1

    def evaluate(self):
        found = {}
        for length, rows in self.questions.items():
            found[length] = exact_match(self.model, rows, DEVICE, rows_at_once=max(4, 50_000 // length))
            shares = "  ".join(f"{kind} {share:.1%} of {asked}" for kind, (share, asked) in found[length].items())
            print(f"{self.elapsed:5.0f} s  EVAL {length} tokens: {shares}", flush=True)
        return found

    def save(self, path):
        state = {
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "progress": (self.tokens, self.steps, self.elapsed),
        }
        torch.save(state, f"{path}.part")
        os.replace(f"{path}.part", path)

    def load(self, path):
        state = torch.load(path, map_location=DEVICE)
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.tokens, self.steps, self.elapsed = state["progress"]
        print(f"going on at {self.elapsed:.0f} s, step {self.steps}", flush=True)

    def export(self, out, found):
        """bf16 weights in parts of equal size, each small enough to carry around, and run.json about the run."""
        parts, sizes = [{} for _ in range(WEIGHT_PARTS)], [0] * WEIGHT_PARTS
        for name, tensor in sorted(self.model.state_dict().items(), key=lambda item: -item[1].numel()):
            smallest = sizes.index(min(sizes))
            parts[smallest][name] = tensor.to(torch.bfloat16).cpu()
            sizes[smallest] += tensor.numel()
        for number, part in enumerate(parts):
            torch.save(part, out / f"part{number}.pt")
        told = {"tokens": self.tokens, "steps": self.steps, "seconds": round(self.elapsed), "found": found}
        (out / "run.json").write_text(json.dumps({**told, "shape": asdict(self.shape)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
