"""A language of eight tones that a tiny model learns in seconds: real training, real audio, texts known in advance."""

import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from raysr.audio.cmvn import CmvnAccumulator
from raysr.audio.fbank import Fbank, FbankConfig
from raysr.decode.endpoint import EndpointConfig
from raysr.decode.ngram import Ngram
from raysr.decode.recognise import DecodeConfig
from raysr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from raysr.model.model import AsrModel
from raysr.pool import EntryConfig, Recogniser
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

RATE = 16000
TONES = {letter: 300.0 * 1.33**number for number, letter in enumerate("abcdefgh")}
LETTER_SECONDS, GAP_SECONDS = 0.12, 0.05
PAUSES = {" ": 0.32, ",": 1.3}
WORDS = ("bad", "cab", "dead", "face", "gab", "hag", "head", "cafe", "beg", "ache")


def sung(text: str, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return ``text`` as tones in faint noise, float32 (N,); a comma is a pause long enough to end a segment."""
    pieces = [np.zeros(int(0.15 * rate))]
    for letter in text:
        if letter in PAUSES:
            pieces.append(np.zeros(int(PAUSES[letter] * rate)))
            continue
        time = np.arange(int(LETTER_SECONDS * rate)) / rate
        pieces += [np.sin(2 * np.pi * TONES[letter] * time) * np.hanning(len(time)) * 0.3]
        pieces += [np.zeros(int(GAP_SECONDS * rate))]
    pieces.append(np.zeros(int(0.2 * rate)))
    samples = np.concatenate(pieces)
    noise = np.random.default_rng(seed).normal(0, 0.002, len(samples))
    return (samples + noise).astype(np.float32)


def silence(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.002, int(seconds * rate)).astype(np.float32)


def spoken(text: str) -> str:
    """Return what a recogniser should write for ``sung(text)``."""
    return text.replace(",", "")


def sentences(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    gaps = [" ", " ", ", "]
    found = []
    for _ in range(count):
        words = generator.choice(WORDS, generator.integers(1, 4))
        found.append("".join(word + str(generator.choice(gaps)) for word in words).rstrip(", "))
    return found


@lru_cache(maxsize=1)
def trained(steps: int = 400) -> Recogniser:
    """Return a recogniser trained on sung sentences."""
    torch.manual_seed(0)
    texts = sentences(256, seed=1)
    tokeniser = Tokeniser.train(map(spoken, texts), TokeniserConfig(kind="char"))
    fbank = Fbank(FbankConfig())
    features = [fbank(torch.from_numpy(sung(text, seed=n))) for n, text in enumerate(texts)]
    config = ModelConfig(
        encoder=EncoderConfig(
            dim=48, layers=1, heads=2, feed_forward=64, kernel=5, dropout=0.0, subsampling_channels=8
        ),
        decoder=DecoderConfig(heads=2, feed_forward=64, dropout=0.0),
    )
    model = AsrModel(config, tokeniser.vocab_size)
    statistics = CmvnAccumulator()
    for feature in features:
        statistics.add(feature)
    model.set_cmvn(*(torch.as_tensor(value, dtype=torch.float32) for value in statistics.finish()))
    _fit(model, features, [torch.tensor(tokeniser.encode(spoken(text))) for text in texts], steps)
    decode = DecodeConfig(method="rescore", beam=4, nbest=3, endpoint=EndpointConfig(pause=0.5))
    lm = Ngram.train([tokeniser.encode(spoken(text)) for text in texts], 3, tokeniser.vocab_size)
    return Recogniser(model.eval(), tokeniser, lm, EntryConfig(model=config, decode=decode))


def relative(recogniser: Recogniser) -> Recogniser:
    """Return a recogniser of slightly other weights: it hears the same words with other confidences."""
    model = copy.deepcopy(recogniser.model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * weight.std(correction=0) * torch.randn_like(weight)
    return replace(recogniser, model=model)


def _fit(model: AsrModel, features: list[torch.Tensor], tokens: list[torch.Tensor], steps: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(features), (10,), generator=generator).tolist()
        lengths = torch.tensor([len(features[i]) for i in batch])
        token_lengths = torch.tensor([len(tokens[i]) for i in batch])
        losses = model.loss(
            pad_sequence([features[i] for i in batch], batch_first=True),
            lengths,
            pad_sequence([tokens[i] for i in batch], batch_first=True),
            token_lengths,
            generator,
        )
        optimiser.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
