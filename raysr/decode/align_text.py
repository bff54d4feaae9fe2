"""Where the words of a known text lie in its audio."""

from dataclasses import dataclass

import torch
from torch import Tensor

from raysr.decode.alignment import Alignment, align
from raysr.decode.hypothesis import mean_confidence
from raysr.decode.words import Word
from raysr.errors import CorpusError
from raysr.model.ctc import frames_needed
from raysr.model.model import FRAME_SHIFT_MS, AsrModel
from raysr.text.normalise import normalise
from raysr.text.tokeniser import UNKNOWN, Tokeniser


@dataclass(frozen=True, slots=True)
class AlignedText:
    """The words of a text with their times; ``log_prob`` is that of the best CTC path a frame."""

    words: tuple[Word, ...]
    log_prob: float


def align_text(model: AsrModel, tokeniser: Tokeniser, features: Tensor, text: str) -> AlignedText:
    """Align a text with raw fbank features (T, mel_bins) that say it, heard with full context.

    The text is taken as it is where the tokeniser knows its characters, otherwise normalised
    (:func:`raysr.text.normalise.normalise`). A word lasts from the first frame of its first to the last of its last
    token: where CTC puts them, which is a frame or a few for each. Its confidence is the geometric mean of its tokens'
    posteriors: how well the audio bears it out, not how likely it is to be right.

    Raises:
        CorpusError: there are no words, characters that the tokeniser lacks, or fewer frames than tokens.
    """
    tokens = _tokens(tokeniser, text)
    needed = int(frames_needed(torch.tensor([tokens]), torch.tensor([len(tokens)])))
    seconds, frames = (
        model.encoder.hop * FRAME_SHIFT_MS / 1000,
        model.output_frames(len(features)),
    )
    if frames < needed:
        raise CorpusError(
            f"the text takes at least {needed} frames of {1000 * seconds:g} ms and the audio has {frames}: "
            "check that they belong together, or cut the text to what is said"
        )
    device = next(model.parameters()).device
    with torch.inference_mode():
        lengths = torch.tensor([len(features)], device=device)
        out, out_lengths = model.encode(features.unsqueeze(0).to(device), lengths)
        ((found,),) = align(model.ctc_log_probs(out), out_lengths, [[tokens]])
    assert found is not None, "a CTC head gives every token a probability above 0"
    return AlignedText(_words(tokeniser, tokens, found, seconds), found.log_prob / frames)


def _tokens(tokeniser: Tokeniser, text: str) -> list[int]:
    tokens = tokeniser.encode(text)
    if UNKNOWN in tokens:
        text = normalise(text)
        tokens = tokeniser.encode(text)
    if not tokeniser.words(tokens):
        raise CorpusError("the text has no words: give what is said in the audio")
    if UNKNOWN in tokens:
        raise CorpusError(
            f"the model's tokeniser does not know {' '.join(tokeniser.unknown(text))}: write the text with the "
            "characters that the model was trained on"
        )
    return tokens


def _words(tokeniser: Tokeniser, tokens: list[int], found: Alignment, seconds: float) -> tuple[Word, ...]:
    return tuple(
        Word(
            text=word.text,
            start=found.first[word.first] * seconds,
            end=(found.last[word.end - 1] + 1) * seconds,
            confidence=mean_confidence(found.confidences[word.first : word.end]),
        )
        for word in tokeniser.words(tokens)
    )
