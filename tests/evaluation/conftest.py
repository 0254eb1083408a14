"""What several tests of evaluation share."""

from collections.abc import Iterator
from typing import Any

import pytest

from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.evaluation.requests import Request
from rlvr.sampling.settings import Sampling


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that a model gets."""
    asked: list[Request] = []
    generate = TransformersBackend.generate

    def counted(self: TransformersBackend, requests: list[Request], sampling: Sampling) -> Iterator[Any]:
        asked.extend(requests)
        return generate(self, requests, sampling)

    monkeypatch.setattr(TransformersBackend, "generate", counted)
    return asked
