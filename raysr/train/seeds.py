"""Seeds of a training's draws: each is a function of what it is for, so that no generator's state need be kept."""


def mix(*parts: int) -> int:
    """Mix integers into one 63-bit seed."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part + 0x632BE59BD9B4E019)) * 0xD6E8FEB86659FD93 & (2**64 - 1)
        value ^= value >> 32
    return value >> 1
