"""Numbers in messages."""

from __future__ import annotations


def counted(number: int, one: str) -> str:
    """A number of things, each of which is called ``one``: ``1 image``, ``2 images``."""
    if number == 1:
        return f"1 {one}"
    return f"{number} {one}{'es' if one.endswith(('s', 'tch')) else 's'}"
