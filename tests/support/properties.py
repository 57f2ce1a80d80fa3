"""The number of examples for a property that takes longer than others."""

from __future__ import annotations

from hypothesis import settings

# A third of the profile's number (tests/conftest.py).
fewer_examples = settings(max_examples=settings().max_examples // 3)
