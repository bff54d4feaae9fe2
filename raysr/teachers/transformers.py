"""Any speech recogniser of the transformers library as teacher: CTC (wav2vec 2.0, HuBERT, …) or sequence to sequence.

Models come as the library's pipeline loads them; greedy texts then carry scores, which the pipeline does not give.
"""

import math
from collections.abc import Iterator, Sequence
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from raysr.config import Config as Options
from raysr.errors import ConfigError
from raysr.teachers.base import TeacherContext, TeacherOutput, Waveform
from raysr.teachers.scores import confidences_of, words_of
from raysr.teachers.weights import weights_hash
from raysr.text.normalise import normalise

RATE = 16000
SHORTEST = 1600  # samples: under a tenth of a second there is no word
WINDOW = 30 * RATE  # samples that Whisper hears at once


class Transformers:
    """A model of the transformers library."""

    class Config(Options):
        """Which model, and how it reads.

        Attributes:
            model: folder of a saved model with its processor, or a name on the Hugging Face hub.
            revision: of a name on the hub: a branch, tag or commit.
            language: code such as ``en``, for multilingual Whisper models; None finds it out.
            beams: of a sequence-to-sequence model; 1 is greedy.
            batch: utterances read at once.
            most_tokens: that an utterance may have; None is the model's own limit.
            dtype: of the weights; ``auto`` is as they were saved.
        """

        model: str
        revision: str | None = None
        language: str | None = None
        beams: int = Field(default=1, ge=1)
        batch: int = Field(default=8, ge=1)
        most_tokens: int | None = Field(default=None, ge=1)
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32"

    def __init__(self, config: Config, context: TeacherContext) -> None:
        self.config = config
        folder = Path(config.model).expanduser()
        self._pipe = _pipeline(config, str(folder) if folder.is_dir() else config.model, context.device)
        rate = self._pipe.feature_extractor.sampling_rate
        if rate != RATE:
            raise ConfigError(
                f"teacher 'transformers': model '{config.model}' hears {rate} Hz: choose one of {RATE} Hz"
            )
        weights = weights_hash(folder) or getattr(self._pipe.model.config, "_commit_hash", None) or "unknown"
        self.name = f"transformers:{folder.name}"
        self.version = f"{metadata.version('transformers')}+{weights}"

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        outputs = [TeacherOutput() for _ in waveforms]
        for batch in self._batches(waveforms):
            read = self._read([waveforms[n] for n in batch])
            for n, output in zip(batch, read, strict=True):
                outputs[n] = output
        return outputs

    def _batches(self, waveforms: Sequence[Waveform]) -> Iterator[list[int]]:
        """Yield the positions of what is long enough, like lengths together where padding changes no result."""
        order = sorted(
            (n for n, w in enumerate(waveforms) if len(w) >= SHORTEST), key=lambda n: len(waveforms[n])
        )
        size = self.config.batch if self._knows_padding() else 1
        for first in range(0, len(order), size):
            yield order[first : first + size]

    def _knows_padding(self) -> bool:
        """Return whether the model is told what is padding, or, as Whisper, always hears as much."""
        return self._pipe.type == "seq2seq_whisper" or self._pipe.feature_extractor.return_attention_mask

    def _read(self, waveforms: Sequence[Waveform]) -> list[TeacherOutput]:
        whisper = self._pipe.type == "seq2seq_whisper"
        if self._pipe.type == "ctc_with_lm" or (whisper and max(map(len, waveforms)) > WINDOW):
            more = {"return_timestamps": True, "generate_kwargs": self._generation()} if whisper else {}
            read = [self._pipe({"raw": wave, "sampling_rate": RATE}, **more) for wave in waveforms]
            return [TeacherOutput(text=normalise(one["text"])) for one in read]
        inputs = self._pipe.feature_extractor(
            list(waveforms),
            sampling_rate=RATE,
            return_tensors="pt",
            padding="max_length" if whisper else True,
        )
        inputs = inputs.to(self._pipe.device, self._pipe.model.dtype)
        return self._read_ctc(inputs) if self._pipe.type == "ctc" else self._read_tokens(inputs)

    def _read_ctc(self, inputs: Any) -> list[TeacherOutput]:
        logits = self._pipe.model(**inputs).logits  # (B, T, V)
        scores, ids = logits.float().log_softmax(-1).max(-1)  # (B, T) each
        lengths = self._frames(inputs, logits.shape[1])
        return [
            self._spelt(one[:length].tolist(), logprobs[:length].tolist())
            for one, logprobs, length in zip(ids.cpu(), scores.cpu(), lengths, strict=True)
        ]

    def _frames(self, inputs: Any, frames: int) -> list[int]:
        """Return how many output frames of each utterance are not of padding."""
        mask = inputs.get("attention_mask")
        if mask is None:
            return [frames] * len(next(iter(inputs.values())))
        count = getattr(self._pipe.model, "_get_feat_extract_output_lengths", None)
        lengths = mask.sum(-1)
        lengths = count(lengths) if count else lengths * frames // mask.shape[-1]
        return [min(frames, int(length)) for length in lengths]

    def _spelt(self, ids: list[int], logprobs: list[float]) -> TeacherOutput:
        """Read the best path of CTC: repetitions once, without blanks; a token is as sure as its surest frame."""
        tokenizer = self._pipe.tokenizer
        silent = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
        tokens, first = [], 0
        for token, run in groupby(ids):
            length = len(list(run))
            if token not in silent:
                tokens.append((token, max(logprobs[first : first + length])))
            first += length
        text = normalise(tokenizer.decode(ids, skip_special_tokens=True))
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        spelt = [(self._piece(token, delimiter), logprob) for token, logprob in tokens]
        return TeacherOutput(
            text=text,
            tokens=tuple(token for token, _ in tokens),
            score=sum(logprobs),
            normalised_score=sum(logprobs) / max(1, len(tokens)),
            confidences=tuple(math.exp(logprob) for _, logprob in tokens),
            word_confidences=confidences_of(text, words_of(spelt)),
        )

    def _piece(self, token: int, delimiter: str | None) -> str:
        piece = str(self._pipe.tokenizer.convert_ids_to_tokens(token))
        return " " if piece == delimiter else piece.replace("▁", " ")

    def _generation(self) -> dict[str, Any]:
        c = self.config
        given = {"language": c.language, "max_new_tokens": c.most_tokens}
        return {"num_beams": c.beams, "do_sample": False, "renormalize_logits": True} | {
            k: v for k, v in given.items() if v is not None
        }

    def _read_tokens(self, inputs: Any) -> list[TeacherOutput]:
        model = self._pipe.model
        made = model.generate(
            **inputs, **self._generation(), return_dict_in_generate=True, output_scores=True
        )
        if self.config.beams > 1:
            # the library mixes up the beams of a batch where it gives scores of tokens
            return [
                self._told(tokens, None, float(score))
                for tokens, score in zip(made.sequences, made.sequences_scores, strict=True)
            ]
        scores = model.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
        return [
            self._told(tokens[-len(row) :], row) for tokens, row in zip(made.sequences, scores, strict=True)
        ]

    def _told(self, tokens: Tensor, logprobs: Tensor | None, mean: float | None = None) -> TeacherOutput:
        """Read the tokens that were generated, (T,) with (T,) log probabilities; the end counts as one of them."""
        tokenizer = self._pipe.tokenizer
        text = normalise(tokenizer.decode(tokens, skip_special_tokens=True))
        pieces = [(int(t), tokenizer.decode([int(t)], skip_special_tokens=True)) for t in tokens]
        if logprobs is None:
            kept = tuple(token for token, piece in pieces if piece)
            return TeacherOutput(text=text, tokens=kept, normalised_score=mean)
        ends = (tokens == tokenizer.eos_token_id).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(tokens)
        known = logprobs[:length].tolist()
        spelt = [(t, piece, p) for (t, piece), p in zip(pieces, known, strict=False) if piece]
        return TeacherOutput(
            text=text,
            tokens=tuple(token for token, _, _ in spelt),
            score=sum(known),
            normalised_score=sum(known) / max(1, length),
            confidences=tuple(math.exp(p) for _, _, p in spelt),
            word_confidences=confidences_of(text, words_of((piece, p) for _, piece, p in spelt)),
        )


def _pipeline(config: Transformers.Config, model: str, device: str) -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise ConfigError(
            "teacher 'transformers' needs its package: pip install 'raysr[transformers]'"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return transformers.pipeline(
            "automatic-speech-recognition",
            model=model,
            revision=config.revision,
            device=device,
            dtype=config.dtype,
        )
    except Exception as error:
        # the library raises what the hub, the file system or a model's own code do
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"teacher 'transformers': model '{config.model}' cannot be loaded ({reason})"
        ) from error
