"""Text as letters that stand for the bytes of its UTF-8 form, for tokenisers that know every script.

A vocabulary over bytes (Wang et al., "Neural Machine Translation with Byte-Level Subwords", AAAI 2020) can write what
no training text held. SentencePiece learns merges of letters, not of bytes; so each byte has a letter of its own here.
A space stays a space, so that words stay apart.
"""

_FIRST = 0x100  # Latin letters with marks from here on: no white space, no marks that would join to others
LETTERS = "".join(chr(_FIRST + byte) for byte in range(256))
_OF = {letter: byte for byte, letter in enumerate(LETTERS)}


def to_letters(text: str) -> str:
    """Return text with each byte but spaces as its letter."""
    return "".join(" " if byte == 0x20 else LETTERS[byte] for byte in text.encode())


def from_letters(letters: str) -> str:
    """Return the text of letters; bytes that make no character, such as the beginning of one, are left out.

    Other characters than letters of bytes stay as they are.
    """
    found: list[str] = []
    waiting = bytearray()
    for letter in letters:
        if letter in _OF:
            waiting.append(_OF[letter])
            continue
        found += [waiting.decode(errors="ignore"), letter]
        waiting.clear()
    return "".join([*found, waiting.decode(errors="ignore")])
