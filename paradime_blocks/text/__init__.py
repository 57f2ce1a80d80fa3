"""Remote text made fit to be shown, and secrets kept out of it: what the flows use of it."""

from paradime_blocks.text.redaction import Redactor
from paradime_blocks.text.rendering import cell, clean, fence, head_and_tail, one_line, shorten

__all__ = [
    "Redactor",
    "cell",
    "clean",
    "fence",
    "head_and_tail",
    "one_line",
    "shorten",
]
