"""How many examples a property is tried with, where one takes longer than others."""

from __future__ import annotations

from hypothesis import settings

# A third of what the profile says (tests/conftest.py).
fewer_examples = settings(max_examples=settings().max_examples // 3)
