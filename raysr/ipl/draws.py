"""Draws that are the same whenever they are made, so that a resumed run chooses as before."""

import hashlib


def draw(salt: str, name: str) -> float:
    """Return a number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{salt}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
