"""Long recordings as segments: utterances of the same audio with their own start and duration; nothing is copied."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from raysr.audio.files import decode_blocks
from raysr.audio.speech_segments import Segment, SegmentConfig, segments
from raysr.audio.vad import speech_probabilities
from raysr.corpus.load import encoded, may_pass
from raysr.corpus.recordings import RECORDING_S
from raysr.corpus.utterance import Utterance
from raysr.errors import RaysrError, one_line

UNCUT = "uncut"
"""The key in ``custom`` under which a long recording that could not be cut says why."""
PAUSES_S = (0.5, 1.0)
"""Before a disk or a store that did not answer is asked again."""


@dataclass(frozen=True)
class Cut:
    """What became of one long recording.

    Attributes:
        id: of the recording.
        duration: in seconds, as its manifest says.
        segments: where speech is, in seconds from its beginning.
        error: why it could not be cut; it then stays one utterance.
        passing: the error is the disk's or the store's, and another time it may go well.
    """

    id: str
    duration: float
    segments: Sequence[Segment] = ()
    error: str | None = None
    passing: bool = False

    @property
    def speech(self) -> float:
        """Seconds in segments."""
        return sum(end - start for start, end in self.segments)

    def utterances(self, recording: Utterance) -> list[Utterance]:
        """Return ``recording`` as its segments, named ``id@start-end``; their transcripts are not known."""
        if self.error is not None:
            return [replace(recording, custom={**recording.custom, UNCUT: self.error})]
        # One that is itself a part does not tell how long the whole is.
        known = {} if recording.start else {RECORDING_S: recording.duration}
        return [
            replace(
                recording,
                id=f"{recording.id}@{start:.3f}-{end:.3f}",
                start=recording.start + start,
                duration=end - start,
                text=None,
                custom={**known, **recording.custom},
            )
            for start, end in self.segments
        ]


@dataclass(frozen=True)
class CutTask:
    """One recording and how it is cut."""

    recording: Utterance
    config: SegmentConfig


def cut(task: CutTask) -> Cut:
    """Cut one recording, in memory that does not grow with it; what is wrong with it is the cut's ``error``."""
    torch.set_num_threads(1)
    found = _cut(task)
    for pause in PAUSES_S:
        if not found.passing:
            break
        time.sleep(pause)
        found = _cut(task)
    return found


def _cut(task: CutTask) -> Cut:
    u = task.recording
    try:
        blocks = decode_blocks(encoded(u), start=u.start, duration=u.duration, name=u.audio)
        return Cut(u.id, u.duration, segments(speech_probabilities(blocks), u.duration, task.config))
    except RaysrError as error:
        return Cut(u.id, u.duration, (), one_line(f"utterance {u.id}: {error}"), may_pass(error))
    except Exception as error:
        # Decoders may raise anything on damaged bytes; it costs this recording and no other.
        told = one_line(f"utterance {u.id}: {type(error).__name__}: {error}")
        return Cut(u.id, u.duration, (), told, may_pass(error))
