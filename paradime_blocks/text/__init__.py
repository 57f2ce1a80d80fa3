"""Prepares text from Bolt and dbt for display, and removes secrets from such text. The flows import from here."""

from paradime_blocks.text.long_text import LongText
from paradime_blocks.text.redaction import Redactor
from paradime_blocks.text.rendering import cell, clean, fence, head_and_tail, one_line, shorten

__all__ = [
    "LongText",
    "Redactor",
    "cell",
    "clean",
    "fence",
    "head_and_tail",
    "one_line",
    "shorten",
]
