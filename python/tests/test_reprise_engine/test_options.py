"""What an engine's user may write, and what is said to whoever writes something else."""

from __future__ import annotations

from typing import Any

import pytest

from reprise_engine.options import Options, parse_bytes, parse_options


def test_what_is_given_is_taken_and_the_rest_has_its_default() -> None:
    given: dict[str, Any] = {"socket": "/run/cache.sock", "autostart": True, "save": "prompt", "save_queue": "1.5GiB"}
    options = parse_options(given, "its settings")
    assert options == Options(socket="/run/cache.sock", autostart=True, save="prompt", save_queue="1.5GiB")
    assert options.save_queue_bytes == 3 * 2**29
    assert parse_options({}, "its settings") == Options()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sockett": "x"}, "sockett is no option; there are socket, data_dir, autostart"),
        ({"autostart": "yes"}, "autostart must be true or false, not 'yes'"),
        ({"lookup_deadline_ms": -1}, "lookup_deadline_ms must be a whole number from 0, not -1"),
        ({"chunk_tokens": True}, "chunk_tokens must be a whole number from 0, not True"),
        ({"save": "answers"}, "save must be one of all, prompt, none, not 'answers'"),
        ({"staging": "much"}, "staging must be a size such as \"4GiB\", not 'much'"),
        ({"memory": 4}, 'memory must be a size such as "4GiB", not 4'),
        ({"socket": None}, "socket must be a text, not None"),
    ],
)
def test_what_cannot_be_is_refused_by_name_with_what_it_may_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^its settings: ") as refused:
        parse_options(given, "its settings")
    assert said in str(refused.value)


def test_all_faults_are_named_together() -> None:
    with pytest.raises(ValueError) as refused:
        parse_options({"disc": "1GiB", "save": 1, "disk": "1GiB"}, "its settings")
    assert "disc is no option" in str(refused.value) and "; save must be" in str(refused.value)


@pytest.mark.parametrize("text", ["", "4", "GiB", "4 GB", "-1GiB", "4gib", "1e3MiB"])
def test_a_size_needs_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number and one of"):
        parse_bytes(text)
