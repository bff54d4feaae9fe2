"""A conventional recogniser as teacher: PocketSphinx, an HMM with a pronunciation dictionary and an n-gram.

The wheel carries an American English model. Its word posteriors (``Segment.prob``) rank utterances well on
clean speech and say nothing at 0 dB of music.
"""

import math
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from pydantic import Field

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform, one_by_one
from raysr.text.normalise import normalise

SHORTEST = 1600  # samples: under a tenth of a second there is no word
FLOOR = 1e-30


class PocketSphinx:
    """PocketSphinx with its own model, or with a user's dictionary and language model."""

    class Config(Options):
        """``lm`` (ARPA or binary) and ``dictionary`` replace those in the wheel; ``nbest`` texts are kept."""

        lm: str | None = None
        dictionary: str | None = None
        nbest: int = Field(default=1, ge=1)

    name = "pocketsphinx"

    def __init__(self, config: Config, context: TeacherContext) -> None:
        try:
            from pocketsphinx import Decoder
        except ModuleNotFoundError:
            raise ConfigError(
                "teacher 'pocketsphinx' needs its package: pip install 'raysr[teachers]'"
            ) from None
        options = {"samprate": 16000, "loglevel": "FATAL"}
        options |= {"lm": config.lm} if config.lm else {}
        options |= {"dict": config.dictionary} if config.dictionary else {}
        self.config = config
        self.version = metadata.version("pocketsphinx")
        self._decoder: Any = Decoder(**options)

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        return one_by_one(self._recognise, waveforms)

    def _recognise(self, waveform: Waveform) -> TeacherOutput:
        if len(waveform) < SHORTEST:
            return TeacherOutput()
        decoder = self._decoder
        decoder.reinit_feat()  # its front end remembers: without this the result depends on what came before
        decoder.start_utt()
        decoder.process_raw((np.clip(waveform, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        if best is None:
            return TeacherOutput()
        words = [s for s in decoder.seg() if not s.word.startswith(("<", "["))]
        confidences = tuple(min(1.0, float(s.prob)) for s in words)
        mean = sum(confidences) / max(1, len(confidences))
        return TeacherOutput(
            text=normalise(best.hypstr),
            score=math.log(max(best.score, FLOOR)),
            normalised_score=math.log(max(mean, FLOOR)),
            confidences=confidences,
            nbest=self._nbest(),
        )

    def _nbest(self) -> tuple[tuple[str, float], ...]:
        if self.config.nbest == 1:
            return ()
        found = zip(self._decoder.nbest(), range(self.config.nbest), strict=False)
        return tuple((normalise(h.hypstr), math.log(max(h.score, FLOOR))) for h, _ in found if h is not None)
