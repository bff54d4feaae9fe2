"""File names for ids: any id has one, no two ids have the same, and most are left as they are."""

import hashlib
import unicodedata

_LONGEST_BYTES = 200
_ALWAYS = set('%\\:*?"<>|')
_NOT_IN_TABLES = set("%\0\ufeff")
_NO_CHARACTERS = {"Cc", "Cs", "Zl", "Zp"}


def file_name(name: str) -> str:
    """Return a relative path, without a suffix, for an id; slashes make folders.

    What a file system, a shell's user or an importer may stumble over (controls, colons, names that begin with a
    dot or are too long, folders called like audio files) is written as ``%`` and two hexadecimal digits a byte.
    """
    *folders, last = name.split("/")
    return "/".join([*(_component(part, folder=True) for part in folders), _component(last)])


def without_blanks(name: str) -> str:
    """Return a name without white space, for tables whose columns it parts; ``%20`` and the like stand for it."""
    return "".join(_quoted(c) if c.isspace() or c in _NOT_IN_TABLES else c for c in name) or "%"


def _component(part: str, folder: bool = False) -> str:
    safe = "".join(
        _quoted(c) if c in _ALWAYS or unicodedata.category(c) in _NO_CHARACTERS else c for c in part
    )
    if not safe or safe[0] in ". " or safe[-1] in ". ":
        safe = _quoted(safe[:1]) + safe[1:-1] + _quoted(safe[-1:]) if len(safe) > 1 else _quoted(safe or "\0")
    if folder:
        safe = safe.replace(".", "%2E")
    encoded = safe.encode()
    if len(encoded) > _LONGEST_BYTES:
        digest = hashlib.sha256(part.encode()).hexdigest()[:16]
        safe = f"{encoded[: _LONGEST_BYTES - 20].decode(errors='ignore')}%~{digest}"
    return safe


def _quoted(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
