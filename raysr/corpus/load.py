"""From an utterance to its waveform, and the hash by which caches know that waveform."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import av
import numpy as np

from raysr.audio.files import decode
from raysr.audio.mix import apply_mix
from raysr.corpus import places, shards
from raysr.corpus.utterance import Utterance
from raysr.errors import AudioError, CorpusError

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, av.FFmpegError)
_NO_PLACE = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}


def load_waveform(utterance: Utterance) -> np.ndarray:
    """Return the utterance's samples, float32 mono at 16 kHz (N,), with its mix applied.

    Raises:
        AudioError: the audio is missing or cannot be decoded; names the utterance.
    """
    try:
        samples = decode(
            encoded(utterance), start=utterance.start, duration=utterance.duration, name=utterance.audio
        )
        return samples if utterance.mix is None else apply_mix(samples, utterance.mix)
    except (AudioError, CorpusError) as error:
        raise AudioError(f"utterance {utterance.id}: {error}") from error


def may_pass(error: BaseException | None) -> bool:
    """Say whether reading failed for want of a disk or a store that answers, and may go well another time."""
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, _LASTING) and error.errno not in _NO_PLACE:
            return True
        error = error.__cause__
    return False


def content_hash(utterance: Utterance) -> str:
    """Return a hash of what decides the waveform: which audio, which part of it, and what is mixed in.

    Audio in a shard is known by the shard's content, wherever it lies; a file by its path, size and time of
    change, since reading it all would cost as much as what a cache saves.
    """
    parts = [_source(utterance), utterance.start, utterance.duration, utterance.mix, _mixed_in(utterance.mix)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content_identity(utterance: Utterance) -> str:
    """Return a name of the audio that stays when its folder moves: by content, or by file name and size."""
    content = shards.fingerprint(utterance.audio) if utterance.row is not None else None
    if content:
        return f"{content}:{utterance.row}"
    return f"{os.path.basename(utterance.audio)}:{places.version(utterance.audio)[0]}:{utterance.row}"


def encoded(utterance: Utterance) -> bytes | str:
    """Return what a decoder can read: the encoded audio, or the path of a local file that holds it."""
    if utterance.row is not None:
        return shards.read_audio(utterance.audio, utterance.row)
    if places.is_uri(utterance.audio):
        with places.open_binary(utterance.audio) as file:
            return file.read()
    if os.path.exists(utterance.audio) and not os.path.isfile(utterance.audio):
        # reading a pipe or a device may never end
        raise AudioError(f"{utterance.audio}: not a regular file; give the audio file itself")
    return utterance.audio


def _source(utterance: Utterance) -> list[Any]:
    content = shards.fingerprint(utterance.audio) if utterance.row is not None else None
    if content:
        return [content, utterance.row]
    return [utterance.audio, utterance.row, *places.version(utterance.audio)]


def _mixed_in(mix: Mapping[str, Any] | None) -> list[Any]:
    """Return the versions of the files that a recipe names."""
    named = [part["file"] for part in (mix or {}).values() if isinstance(part, Mapping) and part.get("file")]
    return [[file, *places.version(str(file))] for file in named]
