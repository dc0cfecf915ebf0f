"""What all tests with a real vLLM share: starting one takes most of their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from real_vllm.harness import Engine, Prompts


@pytest.fixture(scope="session")
def prompts() -> Prompts:
    return Prompts()


@pytest.fixture(scope="session")
def alone() -> Iterator[Engine]:
    """VLLM without a connector."""
    engine = Engine(enable_prefix_caching=False)
    yield engine
    engine.kill()
