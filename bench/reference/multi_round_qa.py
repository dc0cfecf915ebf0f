"""The multi-round-qa benchmark by its published definition, independent of `reprise bench`: only Python's own library.

Follows benchmarks/multi-round-qa/multi-round-qa.py of the vLLM production stack (also LMCache's), Apache-2.0; own code:

* N users; each asks R questions, one every N / QPS seconds, or as soon as its last answer is there;
* a user joins at the start and every (R - 1) / QPS seconds; N more are there at the start with rounds behind them;
* users are looked at every 0.1 s;
* time to first token: from the sending of the request to the first delta with text; generation time: from there to the
  stream's end; generation speed of a request: its tokens (as its usage says) over its generation time;
* the text is "hi" for each token.

One thing is added, for both sides of the comparison: `ignore_eos`, so that every answer has its full length.

    python3 bench/reference/multi_round_qa.py --url http://127.0.0.1:8080 --num-users 4 --num-rounds 5 --qps 1 ... --time 30

Prints one JSON line: every request with its user, question, times in seconds and tokens.
"""

import argparse
import http.client
import json
import threading
import time
from urllib.parse import urlsplit

STEP_SECONDS = 0.1
# The original's HTTP client keeps idle connections for 5 s; a server may do the same, so a little less here.
KEEP_SECONDS = 4.0


class Connections:
    """Idle connections, shared by all users: as in the original, a request takes the one that was used last."""

    def __init__(self, url):
        self.address = urlsplit(url)
        self.idle = []
        self.lock = threading.Lock()

    def take(self):
        with self.lock:
            while self.idle:
                connection, since = self.idle.pop()
                if time.time() - since < KEEP_SECONDS:
                    return connection
                connection.close()
        return http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=120)

    def give_back(self, connection):
        with self.lock:
            self.idle.append((connection, time.time()))


class User:
    def __init__(self, number, options, model, connections):
        self.number = number
        self.connections = connections
        self.options = options
        self.model = model
        self.gap = options.num_users / options.qps
        self.question = 0
        self.last_asked = None
        self.messages = []
        self.busy = False
        self.requests = []
        self.failure = None

    def been_here(self, seconds, now):
        """As if it had joined so many seconds ago; what it would have asked by now is behind it."""
        behind = int(seconds / self.gap) + 1
        self.question = behind
        self.last_asked = now - seconds + (behind - 1) * self.gap

    def is_done(self):
        return self.question >= self.options.num_rounds and not self.busy

    def look(self, now):
        if self.busy or self.question >= self.options.num_rounds:
            return
        if self.last_asked is None or now - self.last_asked > self.gap:
            self.last_asked = now
            self.busy = True
            threading.Thread(target=self.ask, daemon=True).start()

    def ask(self):
        self.question += 1
        content = f"Here's question #{self.question}: can you tell me a new long story with a happy ending?"
        if not self.messages:
            content = self.opening() + content
        self.messages.append({"role": "user", "content": content})
        try:
            request = self.stream()
        except Exception as error:  # told by the main thread, which ends the run
            self.failure = error
            return
        self.messages.append({"role": "assistant", "content": request.pop("text")})
        self.requests.append({"user": self.number, "question": self.question, **request})
        self.busy = False

    def opening(self):
        system = " ".join(["hi"] * self.options.shared_system_prompt)
        history = " ".join(["hi"] * self.options.user_history_prompt)
        return (
            f"Hi, here's some system prompt: {system}."
            f"For user {self.number}, here are some other context: {history}."
        )

    def stream(self):
        body = {
            "model": self.model,
            "messages": self.messages,
            "temperature": 0,
            "stream": True,
            "max_tokens": self.options.answer_len,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
        }
        text, first_token, usage = "", None, {}
        payload = json.dumps(body)
        while True:
            connection = self.connections.take()
            is_new = connection.sock is None
            sent = time.time()
            try:
                connection.request("POST", "/v1/chat/completions", payload, {"Content-Type": "application/json"})
                response = connection.getresponse()
                break
            except ConnectionError:  # the server closed an idle connection: asked again, as HTTP clients do
                if is_new:
                    raise
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {response.read()[:300]!r}")
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[len(b"data: ") :])
            usage = event.get("usage") or usage
            if not event.get("choices"):
                continue
            piece = event["choices"][0].get("delta", {}).get("content")
            if piece:
                first_token = first_token or time.time()
                text += piece
        ended = time.time()
        self.connections.give_back(connection)
        first_token = first_token or sent
        return {
            "text": text,
            "sent": sent,
            "ttft": first_token - sent,
            "generationTime": ended - first_token,
            "promptTokens": usage.get("prompt_tokens", 0),
            "generationTokens": usage.get("completion_tokens", 0),
        }


def run(options):
    model = options.model or first_model(options.url)
    connections = Connections(options.url)
    users, everyone = [], []
    gap_between_users = (options.num_rounds - 1) / options.qps

    def join():
        user = User(len(everyone) + 1, options, model, connections)
        users.append(user)
        everyone.append(user)
        return user

    start = time.time()
    for index in range(options.num_users):
        join().been_here((options.num_users - index) * gap_between_users, start)
    last_join = 0.0
    while (now := time.time()) - start < options.time:
        if now - last_join > gap_between_users:
            join()
            last_join = now
        for user in users:
            if user.failure:
                raise SystemExit(f"user {user.number}, question {user.question}: {user.failure}")
            user.look(now)
        users = [user for user in users if not user.is_done()]
        time.sleep(STEP_SECONDS)
    while any(user.busy and not user.failure for user in everyone):
        time.sleep(STEP_SECONDS)
    return [{**each, "sent": each["sent"] - start} for user in everyone for each in user.requests]


def first_model(url):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("GET", "/v1/models")
    return json.load(connection.getresponse())["data"][0]["id"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="", help="the first of /v1/models unless given")
    parser.add_argument("--num-users", type=int, default=10)
    parser.add_argument("--num-rounds", type=int, default=5)
    parser.add_argument("--qps", type=float, default=1.0)
    parser.add_argument("--shared-system-prompt", type=int, default=1000)
    parser.add_argument("--user-history-prompt", type=int, default=2000)
    parser.add_argument("--answer-len", type=int, default=100)
    parser.add_argument("--time", type=float, default=60.0, help="seconds in which requests begin")
    print(json.dumps({"requests": run(parser.parse_args())}))


main()
