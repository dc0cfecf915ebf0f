"""That Jinja2 is set up as transformers does it, and chats are prepared as it does: by transformers itself."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from chat_templates import corpus, corpus_sources, digest, now, read_json

# Before 5.24 reasoning had one name.
pytest.importorskip("transformers", minversion="5.24.0")
from transformers.utils import chat_template_utils


class StandingClock:
    """The time that the texts were written at."""

    @staticmethod
    def now() -> datetime:
        """Always the same."""
        return now


def render_chat(source: str, chat: dict[str, Any]) -> str | None:
    """The text, or nothing where the template or transformers refuses."""
    messages = [message_for_engines(message, "developer" in source) for message in chat["messages"]]
    ending = chat.get("ending", "answer")
    try:
        rendered: Any = chat_template_utils.render_jinja_template(
            conversations=[chat_template_utils._normalize_chat_messages(messages)],
            tools=chat.get("tools"),
            chat_template=source,
            continue_final_message=ending == "continued",
            add_generation_prompt=ending == "answer",
            **{"bos_token": "<s>", "eos_token": "</s>", **chat.get("templateArguments", {})},
        )
    except Exception:  # whatever a template runs into
        return None
    return str(rendered[0][0])


def message_for_engines(message: dict[str, Any], knows_developer: bool) -> dict[str, Any]:
    """What vLLM does before transformers: arguments as values, and no content as an empty text."""
    given = {**message, "content": message.get("content") or ""}
    if given["role"] == "developer" and not knows_developer:
        given["role"] = "system"
    calls = given.get("tool_calls")
    if calls:
        given["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}}
            for call in calls
        ]
    return given


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some templates write the date."""
    monkeypatch.setattr(chat_template_utils, "datetime", StandingClock)


def test_transformers_writes_the_texts_that_our_renderer_is_tested_against() -> None:
    if not corpus.exists():
        pytest.skip("the corpus is not there: node scripts/template-corpus.mjs fetches it")
    chats, expected = read_json("chats.json"), read_json("expected.json")
    different = [
        (name, chat["name"])
        for name, source in corpus_sources()
        for chat, text in zip(chats, expected[name]["texts"], strict=True)
        if digest(render_chat(source, chat)) != text
    ]
    assert different == []


def test_transformers_renders_the_constructs_as_written_down() -> None:
    constructs = read_json("constructs.json")

    def render(source: str) -> str | None:
        try:
            return str(chat_template_utils._compile_jinja_template(source).render(**constructs["variables"]))
        except Exception:  # whatever a template runs into
            return None

    assert [[source, render(source)] for source, _ in constructs["rows"]] == constructs["rows"]
