"""The texts that our renderer is tested against are what Jinja2 writes today."""

from __future__ import annotations

import jinja2
import pytest

from chat_templates import corpus, expected_of_constructs, expected_of_corpus, read_json


def test_the_constructs_are_rendered_as_written_down() -> None:
    if jinja2.__version__ != "3.1.6":
        pytest.skip(f"the texts are those of Jinja2 3.1.6, this is {jinja2.__version__}")
    assert expected_of_constructs() == read_json("constructs.json")


def test_the_public_templates_are_rendered_as_written_down() -> None:
    if jinja2.__version__ != "3.1.6":
        pytest.skip(f"the texts are those of Jinja2 3.1.6, this is {jinja2.__version__}")
    if not corpus.exists():
        pytest.skip("the corpus is not there: node scripts/template-corpus.mjs fetches it")
    assert expected_of_corpus() == read_json("expected.json")
