"""Errors a user can act on: one line, what was wrong, where, and what would be right."""


class RaysrError(Exception):
    """The base of every error that the command line prints as one line, without a traceback."""


class ConfigError(RaysrError):
    """A configuration that cannot be used; names the key and, where there is one, the nearest known key."""


class AudioError(RaysrError):
    """Audio that cannot be read; names the file or utterance."""


class CorpusError(RaysrError):
    """A manifest, shard or corpus folder that cannot be used; names the file and line."""


class PoolError(RaysrError):
    """A model pool entry that is missing, incomplete or damaged; names the entry."""


class RunError(RaysrError):
    """A run that cannot start or go on; names the run directory."""


def one_line(text: str) -> str:
    """Return a message as one line whatever it quotes: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip())
