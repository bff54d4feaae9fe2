"""Loops: what a decoder says again and again when it has lost its place."""

from collections import Counter


def commonest_run(text: str, n: int) -> tuple[str, int]:
    """Return the run of ``n`` words that comes most often, and how often; nothing, 0 times, in a shorter text."""
    words = text.split()
    runs = Counter(zip(*(words[k:] for k in range(n)), strict=False))
    run, count = max(runs.items(), key=lambda item: item[1], default=((), 0))
    return " ".join(run), count
