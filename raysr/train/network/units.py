"""Speeds, sizes and times as people say them."""


def speed(bytes_a_second: float) -> str:
    """Return a speed as links are called: in Mbit/s or Gbit/s."""
    mbit = bytes_a_second * 8 / 1e6
    return f"{mbit / 1000:.3g} Gbit/s" if mbit >= 1000 else f"{mbit:.3g} Mbit/s"


def size(number: float) -> str:
    """Return a number of bytes in MB or kB, powers of ten."""
    return f"{number / 1e6:.3g} MB" if number >= 1e6 else f"{number / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Return seconds, or milliseconds where they are few."""
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{seconds * 1000:.2g} ms"
