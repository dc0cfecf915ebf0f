"""The example's proxy between engines that fail, hang and stream. With real ones: real_vllm/test_prefill_decode.py."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

aiohttp = pytest.importorskip("aiohttp")

from aiohttp import web  # noqa: E402
from aiohttp.test_utils import TestClient, TestServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import prefill_decode_proxy  # noqa: E402

Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
CHAT = {"messages": [{"role": "user", "content": "What is in the book?"}], "max_tokens": 9, "stream": True}


class Engine:
    """In place of one: answers as a test wants it, and tells what it was asked."""

    def __init__(self, handler: Handler) -> None:
        self.asked: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self._handler = handler
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self.server = TestServer(app)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        try:
            return await self._handler(request, body)
        except asyncio.CancelledError:
            self.left.set()
            raise


async def answers(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"choices": [{"text": "a lamp"}]})


def fails_with(status: int) -> Handler:
    async def handler(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    return handler


async def hangs(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def streams(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await out.prepare(request)
    for i in range(1000):
        await out.write(f"data: {i}\n\n".encode())
        await asyncio.sleep(0 if i < 10 else 0.01)
    return out


def proxied(
    prefill: Handler | None, decode: Handler, use: Callable[[Any, Any, Engine], Awaitable[None]], **settings: Any
) -> None:
    """Uses a proxy between two engines; None: there is no prefiller."""

    async def run() -> None:
        first, second = Engine(prefill or answers), Engine(decode)
        await first.server.start_server()
        await second.server.start_server()
        urls = [str(engine.server.make_url("")) for engine in (first, second)]
        if prefill is None:
            await first.server.close()
        proxy = prefill_decode_proxy.Proxy(*urls, **{"prefill_seconds": 0.3, "most_requests": 2, **settings})
        server = TestServer(proxy.app())
        await server.start_server()
        async with TestClient(server) as client:
            await use(client, first, second)
        await first.server.close()
        await second.server.close()

    asyncio.run(run())


def test_the_prefiller_reads_and_the_decoder_is_told_to_wait_for_it() -> None:
    async def use(client: Any, prefill: Engine, decode: Engine) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream_options": {"include_usage": True}})
        assert answer.status == 200 and await answer.json() == {"choices": [{"text": "a lamp"}]}
        (read,), (asked,) = prefill.asked, decode.asked
        assert read == {"messages": CHAT["messages"], "max_tokens": 1, "n": 1, "stream": False}
        assert asked["kv_transfer_params"] == {"reprise": {"await": True}}
        assert asked["max_tokens"] == 9 and asked["stream"] is True and "stream_options" in asked

    proxied(answers, answers, use)


@pytest.mark.parametrize("prefill", [None, fails_with(500), fails_with(429), hangs])
def test_without_a_prefill_the_decoder_reads_itself(prefill: Handler | None) -> None:
    async def use(client: Any, prefill: Engine, decode: Engine) -> None:
        for _ in range(2):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.status == 200
        assert decode.asked == [CHAT, CHAT]

    proxied(prefill, answers, use)


def test_what_the_prefiller_refuses_is_refused() -> None:
    async def use(client: Any, _: Engine, decode: Engine) -> None:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status == 400 and (await answer.json())["error"]["message"] == "no"
        assert decode.asked == []

    proxied(fails_with(400), answers, use)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        b'{"prompt": "x", "kv_transfer_params": 1}',
        b'{"prompt": "x", "kv_transfer_params": {"reprise": "no"}}',
        b"\xff\xfe",
    ],
)
def test_bad_input_is_refused_before_anybody_is_asked(body: bytes) -> None:
    async def use(client: Any, prefill: Engine, decode: Engine) -> None:
        answer = await client.post("/v1/chat/completions", data=body)
        assert answer.status == 400 and (await answer.json())["error"]["type"] == "invalid_request_error"
        assert prefill.asked == decode.asked == []

    proxied(answers, answers, use)


def test_a_body_that_is_too_long_is_refused() -> None:
    async def use(client: Any, prefill: Engine, decode: Engine) -> None:
        answer = await client.post("/v1/chat/completions", data=b" " * (prefill_decode_proxy.MOST_BODY_BYTES + 1))
        assert answer.status == 413 and prefill.asked == decode.asked == []

    proxied(answers, answers, use)


@pytest.mark.parametrize("wish", [{"save": False}, {"read": False}])
def test_who_does_not_want_to_be_stored_is_not_read_elsewhere(wish: dict[str, bool]) -> None:
    async def use(client: Any, prefill: Engine, decode: Engine) -> None:
        body = {**CHAT, "kv_transfer_params": {"reprise": wish}}
        assert (await client.post("/v1/chat/completions", json=body)).status == 200
        assert prefill.asked == [] and decode.asked == [body]

    proxied(answers, answers, use)


def test_a_client_that_leaves_ends_its_request_at_the_decoder() -> None:
    async def use(client: Any, _: Engine, decode: Engine) -> None:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readline() == b"data: 0\n"  # while the rest is still to come
        answer.close()
        await asyncio.wait_for(decode.left.wait(), 5)

    proxied(answers, streams, use)


def test_more_requests_than_it_takes_are_refused() -> None:
    async def use(client: Any, _: Engine, decode: Engine) -> None:
        waiting = [asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
        while len(decode.asked) < 2:
            await asyncio.sleep(0.01)
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status == 503 and answer.headers["Retry-After"] == "1"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    proxied(answers, hangs, use)


def test_a_decoder_that_is_gone_is_a_502_and_one_that_dies_ends_the_answer() -> None:
    async def gone(client: Any, _: Engine, decode: Engine) -> None:
        await decode.server.close()
        assert (await client.post("/v1/chat/completions", json=CHAT)).status == 502

    async def dies(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        out = web.StreamResponse()
        await out.prepare(request)
        await out.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return out

    async def half(client: Any, _: Engine, decode: Engine) -> None:
        with pytest.raises(aiohttp.ClientError):
            await (await client.post("/v1/chat/completions", json=CHAT)).read()

    proxied(answers, answers, gone)
    proxied(answers, dies, half)
