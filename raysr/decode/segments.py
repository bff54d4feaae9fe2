"""Decoding a stream of encoder frames into segments: the same code for live sessions and for whole files.

Every frame is treated alike whatever a push holds, so that the finals do not depend on how a stream was cut.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raysr.decode.bias import bias_of, can_write
from raysr.decode.decode_config import DecodeConfig
from raysr.decode.endpoint import Endpointer
from raysr.decode.events import Cause, Event, Final, Partial
from raysr.decode.hypothesis import BLANK, Hypothesis
from raysr.decode.language_model import LanguageModel
from raysr.decode.one_pass import ONE_PASS, one_pass
from raysr.decode.rescore import rescore
from raysr.decode.segment_search import open_search
from raysr.decode.words import best_words, text_of, utterance_confidence, words_of
from raysr.errors import ConfigError
from raysr.model.model import FRAME_SHIFT_MS, AsrModel
from raysr.text.tokeniser import Tokeniser

__all__ = ["Event", "Final", "Partial", "SegmentDecoder"]


class SegmentDecoder:
    """Turns encoder frames into partial and final texts; holds the state of one stream."""

    def __init__(
        self,
        model: AsrModel,
        config: DecodeConfig,
        lm: LanguageModel | None,
        tokeniser: Tokeniser,
        phrases: Mapping[str, float] | None = None,
    ) -> None:
        """Raise :class:`ConfigError` for phrases that cannot be boosted: see :func:`raysr.decode.bias.bias_of`."""
        check_phrases([phrases or {}], config)
        self._model = model
        self._config = config
        self._tokeniser = tokeniser
        self._lm = lm
        self._bias = bias_of([phrases or {}], tokeniser)
        self._decodes_anew = config.method in ONE_PASS
        self._frame_seconds = model.encoder.hop * FRAME_SHIFT_MS / 1000
        self._endpointer = Endpointer(config.endpoint, self._frame_seconds)
        self._frame = 0
        self._segment = 0
        self._shown = ("", "")
        self._open()

    def push(self, out: Tensor, log_probs: Tensor | None = None) -> list[Event]:
        """Read encoder frames; return finals they complete, then the text now open if it changed.

        Args:
            out: frames (t, D).
            log_probs: their natural-log CTC posteriors (t, V) on the CPU, where the caller has them.
        """
        if not len(out):
            return []
        events: list[Event] = []
        with torch.inference_mode():
            log_probs = self._log_probs(out) if log_probs is None else log_probs
            begin = 0
            for end, blank in enumerate(log_probs[:, BLANK].tolist(), 1):
                if self._endpointer.push([blank]):
                    self._read(out[begin:end], log_probs[begin:end])
                    begin = end
                    events += self._close("endpoint")
            self._read(out[begin:], log_probs[begin:])
        caption = self._caption()
        return [*events, caption] if caption else events

    def finalize(self) -> list[Event]:
        """Close the open segment because the client asks for it; the stream goes on."""
        self._endpointer.restart()
        return self._close("finalize")

    def finish(self) -> list[Event]:
        """Close the last segment: there are no more frames."""
        return self._close("stop")

    def _open(self) -> None:
        self._begin = self._frame
        self._frames: list[Tensor] = []
        self._shown = ("", "")
        self._search = open_search(self._config, self._lm, self._bias, self._frame_seconds)

    def _log_probs(self, out: Tensor) -> Tensor:
        """Return the CTC posteriors (t, V) of frames (t, D), each by itself: a larger product may round otherwise."""
        frames = [self._model.ctc_log_probs(frame.view(1, 1, -1))[0] for frame in out]
        return torch.cat([out.new_zeros(0, self._model.vocab_size, dtype=torch.float32), *frames]).cpu()

    def _read(self, out: Tensor, log_probs: Tensor) -> None:
        """Read frames (t, D) of the open segment, and their CTC posteriors (t, V)."""
        self._search.read(log_probs.unsqueeze(0))
        self._frame += len(out)
        if self._decodes_anew or self._config.method == "rescore":
            self._frames.append(out.clone())  # of what may be a row of a large batch

    def _close(self, cause: Cause) -> list[Event]:
        nbest = self._search.nbest(self._config.nbest)
        # An attention decoder finds words in silence too: it is asked where the first pass hears some.
        heard = nbest[:1] if self._decodes_anew else nbest
        if self._frames and any(h.tokens for h in heard):
            nbest = self._second_pass(nbest)
        start, end = self._begin * self._frame_seconds, self._frame * self._frame_seconds
        calibration = self._config.calibration
        words = best_words(self._tokeniser, nbest, self._frame_seconds, start, calibration)
        self._open()
        if not words:
            return []
        self._segment += 1
        return [
            Final(
                segment=self._segment - 1,
                start=start,
                end=end,
                text=" ".join(word.text for word in words),
                words=words,
                confidence=utterance_confidence(words),
                cause=cause,
                nbest=tuple(nbest),
            )
        ]

    def _second_pass(self, nbest: list[Hypothesis]) -> list[Hypothesis]:
        """Return the hypotheses of the segment once the whole of it can be attended to, best first."""
        out = torch.cat(self._frames).unsqueeze(0)  # (1, T, D)
        lengths = torch.tensor([out.shape[1]], device=out.device)
        with torch.inference_mode():
            if self._decodes_anew:
                return one_pass(self._model, out, lengths, self._config, self._lm, self._bias)[0]
            return rescore(self._model, out, lengths, [nbest], self._config)[0]

    def _caption(self) -> Partial | None:
        """Return the text now open, if there is any and it changed."""
        best, stable = self._search.best()
        text, sure = text_of(self._tokeniser, best.tokens), text_of(self._tokeniser, stable)
        # What is decoded anew may come out otherwise from its first token on.
        sure = sure if text.startswith(sure) and not self._decodes_anew else ""
        shown = sure, text[len(sure) :]
        if not text or shown == self._shown:
            return None
        self._shown = shown
        start, end = self._begin * self._frame_seconds, self._frame * self._frame_seconds
        words = words_of(self._tokeniser, best, self._frame_seconds, start)
        return Partial(self._segment, start, end, *shown, words)


def check_phrases(phrases: Sequence[Mapping[str, float]], config: DecodeConfig) -> None:
    """Raise :class:`ConfigError` where phrases are to be boosted by a method that looks for nothing."""
    if config.method == "greedy" and any(phrases):
        raise ConfigError("phrases: greedy decoding cannot boost any; decode with method: beam")


def boostable(phrases: Mapping[str, float], tokeniser: Tokeniser, config: DecodeConfig) -> dict[str, float]:
    """Return the phrases that can be boosted with a tokeniser and a configuration."""
    if config.method == "greedy":
        return {}
    return {phrase: boost for phrase, boost in phrases.items() if can_write(tokeniser, phrase)}
