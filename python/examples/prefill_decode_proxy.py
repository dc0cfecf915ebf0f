"""Prefill here, decode there: one vLLM reads prompts, one on another host answers, and Reprise carries what was read.

    python examples/prefill_decode_proxy.py --prefill http://host-a:8000 --decode http://host-b:8000 [--port 8100]

    client ──► proxy ──1──► prefill   max_tokens 1: the prompt is read, and what came of it goes to the shared tier
                     ──2──► decode    "await": it waits for that in its queue, loads it, and answers   ──► client

The proxy moves no KV and keeps nothing. Without a prefiller, with one that fails or is slow, and for a request that
does not want to be stored, the decoder gets the request at once and reads the prompt itself. docs/prefill-decode.md
says how the two are started and what this costs.

It needs aiohttp, which comes with vLLM. An example: it has no keys and no TLS, so let nobody reach it who may not reach
the two engines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

PATHS = ("/v1/chat/completions", "/v1/completions")
#: A prefiller that could not be reached is left alone for so long.
LEFT_ALONE_SECONDS = 5.0
#: How long connecting may take, and how long an engine that streams may be silent.
CONNECT_SECONDS, SILENT_SECONDS = 2.0, 300.0
MOST_BODY_BYTES = 16 * 2**20
#: What an answer of one token has no use for.
ONLY_FOR_ANSWERS = ("stream_options", "min_tokens", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "best_of")

log = logging.getLogger("prefill-decode")


class Proxy:
    """Requests under way, and whether there is a prefiller."""

    def __init__(self, prefill: str, decode: str, *, prefill_seconds: float, most_requests: int) -> None:
        self._prefill = prefill.rstrip("/")
        self._decode = decode.rstrip("/")
        self._prefill_seconds = prefill_seconds
        self._most_requests = most_requests
        self._requests = 0
        self._prefill_away_until = 0.0
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """What listens to clients."""
        app = web.Application(client_max_size=MOST_BODY_BYTES)
        for path in PATHS:
            app.router.add_post(path, self.answer)
        for path in ("/v1/models", "/health"):
            app.router.add_get(path, self.of_decoder)
        app.cleanup_ctx.append(self._with_session)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Has the prompt read by one engine and answered by the other."""
        if self._requests >= self._most_requests:
            return refused(503, f"{self._requests} requests are under way already", {"Retry-After": "1"})
        self._requests += 1
        try:
            try:
                body = read(await request.read())
            except ValueError as fault:
                return refused(400, str(fault))
            is_there = await self._read_prompt(request.path, body)
            if isinstance(is_there, web.Response):
                return is_there
            return await self._pass_on(request, awaiting(body) if is_there else body)
        finally:
            self._requests -= 1

    async def of_decoder(self, request: web.Request) -> web.StreamResponse:
        """Models and health are the decoder's: without the prefiller the proxy works, too."""
        return await self._pass_on(request, None)

    async def _read_prompt(self, path: str, body: Mapping[str, Any]) -> bool | web.Response:
        """Has the prompt read. False: the decoder reads it. An answer: the request itself is refused."""
        if time.monotonic() < self._prefill_away_until or not wants_to_be_stored(body):
            return False
        try:
            timeout = aiohttp.ClientTimeout(total=self._prefill_seconds, connect=CONNECT_SECONDS)
            async with self._http.post(self._prefill + path, json=of_one_token(body), timeout=timeout) as answer:
                if 400 <= answer.status < 500 and answer.status not in (404, 408, 429):
                    return web.Response(
                        body=await answer.read(), status=answer.status, content_type=answer.content_type
                    )
                await answer.read()
                return answer.status == 200
        except aiohttp.ClientConnectionError as error:
            self._prefill_away_until = time.monotonic() + LEFT_ALONE_SECONDS
            log.warning("no prefill on %s (%s): the decoder reads prompts itself", self._prefill, error)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the prefill failed (%s): the decoder reads this prompt itself", error or type(error).__name__)
        return False

    async def _pass_on(self, request: web.Request, body: Mapping[str, Any] | None) -> web.StreamResponse:
        """The decoder's answer as it comes. A client that leaves ends the request there as well: aiohttp cancels us,
        and the connection is closed.
        """
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        out: web.StreamResponse | None = None
        try:
            async with self._http.request(
                request.method, self._decode + request.path, json=body, timeout=timeout
            ) as answer:
                out = web.StreamResponse(status=answer.status)
                out.content_type = answer.content_type
                await out.prepare(request)
                async for piece in answer.content.iter_any():
                    await out.write(piece)
                await out.write_eof()
                return out
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, aiohttp.ClientConnectionResetError):
                raise  # by the client
            log.warning("the decoder on %s failed: %s", self._decode, error or type(error).__name__)
            if out is None:
                return refused(502, f"the decoder does not answer: {error or type(error).__name__}")
            if request.transport is not None:
                request.transport.abort()  # half an answer must not pass for a whole one
            return out

    @property
    def _http(self) -> aiohttp.ClientSession:
        assert self._session is not None, "it is there while the application runs"
        return self._session

    async def _with_session(self, _app: web.Application) -> Any:
        connector = aiohttp.TCPConnector(limit=2 * self._most_requests)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            yield


def read(body: bytes) -> dict[str, Any]:
    """What the proxy itself must understand of a request; the engines check the rest. Raises ValueError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("the body is not a JSON object")
    if "messages" not in value and "prompt" not in value:
        raise ValueError("there are no messages and no prompt")
    params = value.get("kv_transfer_params")
    if params is not None and not isinstance(params, dict):
        raise ValueError("kv_transfer_params is not an object")
    ours = None if params is None else params.get("reprise")
    if ours is not None and not isinstance(ours, dict):
        raise ValueError("kv_transfer_params.reprise is not an object")
    return value


def wants_to_be_stored(body: Mapping[str, Any]) -> bool:
    """Nobody else's KV is of use to a request that may not be stored or may not read."""
    ours = (body.get("kv_transfer_params") or {}).get("reprise") or {}
    return ours.get("save") is not False and ours.get("read") is not False


def of_one_token(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same prompt, of which nothing but the reading is wanted."""
    asked = {name: value for name, value in body.items() if name not in ONLY_FOR_ANSWERS}
    if "max_completion_tokens" in asked:
        asked["max_completion_tokens"] = 1
    return {**asked, "max_tokens": 1, "n": 1, "stream": False}


def awaiting(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request, told that what came of its prompt is on its way."""
    params = body.get("kv_transfer_params") or {}
    ours = {**(params.get("reprise") or {}), "await": True}
    return {**body, "kv_transfer_params": {**params, "reprise": ours}}


def refused(status: int, why: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"error": {"message": why, "type": kind, "code": status}}
    return web.json_response(error, status=status, headers=headers)


def main() -> None:
    """Listens until it is ended."""
    parser = argparse.ArgumentParser(description="One vLLM reads prompts, another answers.")
    parser.add_argument("--prefill", required=True, metavar="URL", help="the vLLM that reads prompts (kv_producer)")
    parser.add_argument("--decode", required=True, metavar="URL", help="the vLLM that answers (kv_consumer)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--prefill-seconds", type=float, default=120.0, help="how long reading a prompt may take")
    parser.add_argument("--most-requests", type=int, default=256, help="further ones are refused with 503")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    proxy = Proxy(given.prefill, given.decode, prefill_seconds=given.prefill_seconds, most_requests=given.most_requests)
    # With handler_cancellation a client that leaves ends its request.
    web.run_app(
        proxy.app(),
        host=given.host,
        port=given.port,
        handler_cancellation=True,
        print=lambda *_: print(f"Ready at http://{given.host}:{given.port}", flush=True),
        loop=asyncio.new_event_loop(),
    )


if __name__ == "__main__":
    main()
