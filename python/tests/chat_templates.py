"""
Chat templates by Jinja2 itself, set up as transformers does for `apply_chat_template`: what ours is held to.

`python chat_templates.py` writes the expected texts into test/templates; the texts of other people's templates are kept
as digests.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

folder = Path(__file__).parents[2] / "test" / "templates"
corpus = Path(__file__).parents[2] / ".cache" / "chat-templates"
now = datetime(2026, 1, 2, 3, 4, 5)
mark = "CONTINUED-HERE-d1c7f0b9 "

Chat = dict[str, Any]


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the model wrote; in a rendered text it leaves no trace."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """A call block around the body, which gives it names of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: jinja2.runtime.Macro) -> str:
        return str(caller())


def environment() -> jinja2.Environment:
    """As transformers makes it."""

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    result = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    result.globals["strftime_now"] = now.strftime
    return result


def render(source: str, variables: dict[str, Any]) -> str | None:
    """The text, or nothing where the template refuses, or does what Python cannot."""
    try:
        return environment().from_string(source).render(**variables)
    except Exception:  # whatever a template runs into
        return None


def message_for_template(message: Chat, knows_developer: bool) -> Chat:
    """
    As vLLM and transformers prepare messages: arguments as values, no content as an empty text, nothing else that is
    null, reasoning under both names that templates know.
    """
    given = {name: value for name, value in message.items() if value is not None}
    if given["role"] == "developer" and not knows_developer:
        given["role"] = "system"
    given["content"] = given.get("content") or ""
    calls = given.get("tool_calls")
    if calls:
        given["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}}
            for call in calls
        ]
    reasoning = next((given[name] for name in ("reasoning_content", "thinking", "reasoning") if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}


def render_chat(source: str, chat: Chat) -> str | None:
    """As `apply_chat_template` renders a chat."""
    messages = [message_for_template(message, "developer" in source) for message in chat["messages"]]
    ending = chat.get("ending", "answer")
    last = str(messages[-1]["content"])
    if ending == "continued":
        messages[-1]["content"] = last + mark
    text = render(
        source,
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "documents": None,
            **chat.get("templateArguments", {}),
            "messages": messages,
            "tools": chat.get("tools"),
            "add_generation_prompt": ending == "answer",
        },
    )
    if text is None or ending != "continued":
        return text
    at = text.rfind(mark.strip())
    if at == -1 or last.strip() not in text:
        return None
    return text[:at] if text[at : at + len(mark)] == mark else text[:at].rstrip()


def digest(text: str | None) -> str | None:
    """What is kept of a text that is not ours."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_json(name: str) -> Any:
    """A file of test/templates."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def corpus_sources() -> Iterator[tuple[str, str]]:
    """Name and source of every template of the corpus; `node scripts/template-corpus.mjs` fetches it."""
    for path in sorted(corpus.glob("*.jinja")):
        yield path.name, path.read_text(encoding="utf-8")


def expected_of_corpus() -> dict[str, dict[str, Any]]:
    """Of every template its own digest, and one for each of our chats; null where the template refuses it."""
    chats = read_json("chats.json")
    return {
        name: {"source": digest(source), "texts": [digest(render_chat(source, chat)) for chat in chats]}
        for name, source in corpus_sources()
    }


def expected_of_constructs() -> dict[str, Any]:
    """Templates with their texts; null where Jinja2 refuses."""
    given = read_json("constructs.json")
    variables = given["variables"]
    return {"variables": variables, "rows": [[source, render(source, variables)] for source, _ in given["rows"]]}


def main() -> None:
    """Writes what is expected."""
    if jinja2.__version__ != "3.1.6":
        sys.exit(f"this needs jinja2==3.1.6, not {jinja2.__version__}")
    by_template = expected_of_corpus()
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in by_template.items())
    (folder / "expected.json").write_text("{\n" + rows + "\n}\n", encoding="utf-8")
    constructs = expected_of_constructs()
    rows = ",\n".join(json.dumps(row) for row in constructs["rows"])
    head = f'"variables": {json.dumps(constructs["variables"])}'
    (folder / "constructs.json").write_text("{\n" + head + ',\n"rows": [\n' + rows + "\n]\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
