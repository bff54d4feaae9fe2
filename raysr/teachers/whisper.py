"""Whisper as teacher, on CTranslate2 (the package faster-whisper), from weights that the user has or downloads."""

from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform
from raysr.teachers.scores import confidences_of, weighted_mean
from raysr.teachers.weights import weights_hash
from raysr.text.normalise import normalise

RATE = 16000
SHORTEST = 1600  # samples: under a tenth of a second there is no word
WINDOW = 30 * RATE  # samples that the model hears at once
DOUBTFUL = -1.0  # OpenAI's limit: a surer reading outweighs the chance of no speech


class Whisper:
    """A Whisper model in CTranslate2's form."""

    class Config(Options):
        """Which model, and how it reads.

        Attributes:
            model: folder of a converted model, or a name that faster-whisper downloads, such as ``small.en``.
            language: code such as ``en``; None finds it out for every utterance.
            beam: hypotheses of the beam search; the temperature is 0, so that labels can be repeated.
            batch: utterances read at once; those of more than 30 s are read one by one.
            prompt: text to go by, such as names to expect.
            hotwords: words to expect, said to the model before every utterance.
            most_tokens: that 30 s may have; None is the model's own limit.
            no_speech: an utterance more likely than this to hold no speech has an empty label, unless its reading
                is sure all the same; None never.
            word_confidences: align words for their probabilities, which takes a little longer.
            compute_type: of CTranslate2: ``default`` (that of the weights), ``float16``, ``int8``, …
            threads: of the CPU, of one actor.
        """

        model: str
        language: str | None = "en"
        beam: int = Field(default=5, ge=1)
        batch: int = Field(default=8, ge=1)
        prompt: str | None = None
        hotwords: str | None = None
        most_tokens: int | None = Field(default=None, ge=1)
        no_speech: float | None = Field(default=0.6, ge=0, le=1)
        word_confidences: bool = True
        compute_type: str = "default"
        threads: int = Field(default=1, ge=1)

    def __init__(self, config: Config, context: TeacherContext) -> None:
        try:
            import faster_whisper
        except ModuleNotFoundError:
            raise ConfigError("teacher 'whisper' needs its package: pip install 'raysr[whisper]'") from None
        self.config = config
        device, _, index = context.device.partition(":")
        try:
            folder = Path(config.model).expanduser()
            found = folder if folder.is_dir() else Path(faster_whisper.download_model(config.model))
            self._model: Any = faster_whisper.WhisperModel(
                str(found),
                device=device,
                device_index=int(index or 0),
                compute_type=config.compute_type,
                cpu_threads=config.threads,
            )
        except Exception as error:
            # the library raises what CTranslate2, the hub or the file system do
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"teacher 'whisper': model '{config.model}' cannot be loaded ({reason})"
            ) from error
        self._batched: Any = faster_whisper.BatchedInferencePipeline(self._model)
        self.name = f"whisper:{folder.name}"
        self.version = f"{metadata.version('faster-whisper')}+{weights_hash(found)}"

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        outputs = [TeacherOutput() for _ in waveforms]
        short = [n for n, wave in enumerate(waveforms) if SHORTEST <= len(wave) <= WINDOW]
        for first in range(0, len(short), self.config.batch):
            batch = short[first : first + self.config.batch]
            read = self._read_together([waveforms[n] for n in batch])
            for n, segments in zip(batch, read, strict=True):
                outputs[n] = self._output(segments)
        for n, wave in enumerate(waveforms):
            if len(wave) > WINDOW:
                segments, _ = self._model.transcribe(
                    np.ascontiguousarray(wave),
                    language=self.config.language,
                    condition_on_previous_text=False,
                    no_speech_threshold=None,
                    **self._options(),
                )
                outputs[n] = self._output(list(segments))
        return outputs

    def _read_together(self, waveforms: Sequence[Waveform]) -> list[list[Any]]:
        """Return the segments of each waveform: they are one recording to the library, in clips of whole seconds."""
        seconds = [-(-len(wave) // RATE) for wave in waveforms]
        starts = np.concatenate([[0], np.cumsum(seconds)]).astype(int)
        audio = np.zeros(starts[-1] * RATE, np.float32)
        clips = []
        for start, wave in zip(starts, waveforms, strict=False):
            audio[start * RATE : start * RATE + len(wave)] = wave
            # half a sample more: it cuts what is not whole
            clips.append({"start": float(start), "end": start + (len(wave) + 0.5) / RATE})
        segments, _ = self._batched.transcribe(
            audio,
            language=self.config.language or "en",
            multilingual=self.config.language is None,
            vad_filter=False,
            clip_timestamps=clips,
            batch_size=len(waveforms),
            **self._options(),
        )
        found: dict[int, list[Any]] = {int(start): [] for start in starts[:-1]}
        for segment in segments:
            found[segment.seek // self._model.frames_per_second].append(segment)
        return list(found.values())

    def _options(self) -> dict[str, Any]:
        c = self.config
        return {
            "beam_size": c.beam,
            "temperature": 0.0,
            "initial_prompt": c.prompt,
            "hotwords": c.hotwords,
            "max_new_tokens": c.most_tokens,
            "word_timestamps": c.word_confidences,
        }

    def _output(self, segments: Iterable[Any]) -> TeacherOutput:
        spoken = [segment for segment in segments if not self._is_silence(segment)]
        text = normalise("".join(segment.text for segment in spoken))
        words = [(word.word, float(word.probability)) for s in spoken for word in s.words or ()]
        return TeacherOutput(
            text=text,
            normalised_score=weighted_mean((s.avg_logprob, len(s.tokens) + 1) for s in spoken),
            confidences=confidences_of(text, words),
        )

    def _is_silence(self, segment: Any) -> bool:
        limit = self.config.no_speech
        return limit is not None and segment.no_speech_prob > limit and segment.avg_logprob < DOUBTFUL
