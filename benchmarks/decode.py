"""How fast the prefix beam is, beside a C++ one and a textbook's, on the same posteriors and one core.

pip install -e '.[bench]'
python -m benchmarks.decode --json results/decode.json

Three searches, 10 prefixes and the 10 most probable tokens a frame:

raysr      `raysr.decode.prefix_beam`, compiled by numba, an utterance at a time
cpp        `LexiconFreeDecoder` of flashlight-text, C++, an utterance at a time; its KenLM reads the same ARPA file
textbook   `benchmarks.textbook_beam`, dictionaries and loops

on posteriors of models trained on the demo corpus, with characters and with BPE, and on flat ones as a beam has them
that does not know what to keep; with and without the language model of the labelled text; one utterance at a time
(b1) and 32 (b32). The three take turns; a ratio is how many times as long the other one takes, the median over the
rounds. `same` is the share of utterances with the same best hypothesis as raysr's, `better` the share of the others in
which raysr's has the higher score, summed over all alignments: in the C++ search a prefix that ends in a blank and in
its token counts as two of the ten.
"""

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks.arms import RECIPE, WITHOUT_RAY, run_recipe
from benchmarks.code import code_hash
from benchmarks.textbook_beam import TextbookBeam
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.decode.hypothesis import BLANK, EOS
from raysr.decode.language_model import log_prob
from raysr.decode.ngram import Ngram
from raysr.decode.prefix_beam import PrefixBeam, PrefixBeamConfig
from raysr.pool import Pool, load_entry
from raysr.text.tokeniser import UNKNOWN

BEAM, TOKEN_BEAM, LM_WEIGHT = 10, 10, 0.5
VOCABULARIES: Mapping[str, Sequence[str]] = {
    "characters": ["lm.order=6"],
    "bpe": ["tokenizer={kind: bpe, vocab_size: 500}", "lm.order=3"],
}
TRAINING = ["run.cycles=1", "run.seed=1", "selector.first_cycle=1000", "trainer.steps_by_cycle=[2000]"]
Tokens = tuple[int, ...]
Decode = Callable[[Sequence[np.ndarray]], list[Tokens]]


@dataclass(frozen=True)
class Case:
    """What is decoded: posteriors (T, V) of each utterance, and the language model if there is one."""

    posteriors: Sequence[np.ndarray]
    lm: Ngram | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/decode"), help="trained models")
    parser.add_argument("--utterances", type=int, default=96, help="of the demo corpus's clean test set")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if find_spec("flashlight") is None:
        raise SystemExit("error: the C++ search is in a package of its own: pip install -e '.[bench]'")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cases = {}
    for name in VOCABULARIES:
        trained, lm = trained_posteriors(options.work, name, options.utterances)
        flat = flat_posteriors(trained)
        for (kind, posteriors), model in product({"trained": trained, "flat": flat}.items(), (None, lm)):
            cases[f"{name} {kind}{' lm' if model else ''}"] = Case(posteriors, model)
    measured = {name: measure(case, options.rounds) for name, case in cases.items()}
    results = summarise(measured)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(measured))


def trained_posteriors(work: Path, vocabulary: str, utterances: int) -> tuple[list[np.ndarray], Ngram]:
    """Return natural-log posteriors (T, V) of test utterances, and the model pool's LM, training what is missing."""
    chosen = [*TRAINING, *WITHOUT_RAY, *VOCABULARIES[vocabulary]]
    folder = work / f"{vocabulary}-{_key(chosen)}"
    run_recipe(work, folder, chosen)
    entry = Pool(folder / "pool").latest()
    if entry is None:
        raise SystemExit(f"{folder}/pool is empty: remove {folder} to train the model again")
    recogniser = load_entry(entry)
    assert isinstance(recogniser.lm, Ngram)
    parts = list(demo_corpus().tests["clean"])[:utterances]
    cache = FeatureCache(work / "features", recogniser.config.fbank)
    cache.ensure(parts)
    found = []
    with torch.inference_mode():
        for utterance in parts:
            features = cache.get(utterance)
            encoded = recogniser.model.encode(features[None], torch.tensor([len(features)]))
            found.append(recogniser.model.ctc_log_probs(encoded.out)[0].numpy())
    return found, recogniser.lm


def _key(chosen: Sequence[str]) -> str:
    """Return what names a model: a hash of its training's code, the corpus and the configuration."""
    code = code_hash(["raysr.train.local"], [RECIPE])
    return hashlib.sha256("\n".join([code, demo_corpus().hash, *chosen]).encode()).hexdigest()[:16]


def flat_posteriors(like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return posteriors of the same shapes in which no token stands out; unk and eos are none that is heard."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(p.shape, generator=generator) for p in like]
    for frames in noise:
        frames[:, [UNKNOWN, EOS]] = -20.0
    return [frames.log_softmax(-1).numpy() for frames in noise]


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Return times a frame, ratios and agreement of the three searches on one case."""
    with TemporaryDirectory() as folder:
        searches: dict[str, Decode] = {
            "raysr b1": raysr_search(case, 1),
            "raysr b32": raysr_search(case, 32),
            "cpp": cpp_search(case, Path(folder)),
            "textbook": textbook_search(case),
        }
        found: dict[str, list[Tokens]] = {}
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(rounds):
            for name, search in searches.items():
                started = time.perf_counter()
                found[name] = search(case.posteriors)
                seconds[name].append(time.perf_counter() - started)
    frames = sum(len(p) for p in case.posteriors)
    ours = found["raysr b32"]
    return {
        "vocabulary": case.posteriors[0].shape[1],
        "us_per_frame": {
            name: round(1e6 * statistics.median(took) / frames, 2) for name, took in seconds.items()
        },
        "ratio_vs_cpp": _ratios(seconds, "cpp"),
        "ratio_vs_textbook": _ratios(seconds, "textbook"),
        "same": {
            name: _share(a == b for a, b in zip(ours, them, strict=True)) for name, them in found.items()
        },
        "better": {name: better(case, ours, found[name]) for name in ("cpp", "textbook")},
    }


def raysr_search(case: Case, batch: int) -> Decode:
    """Return raysr's search over ``batch`` utterances of like length at a time."""
    config = PrefixBeamConfig(beam=BEAM, token_beam=TOKEN_BEAM, lm_weight=LM_WEIGHT)
    search = PrefixBeam(config, case.lm)

    def decode(posteriors: Sequence[np.ndarray]) -> list[Tokens]:
        found: dict[int, Tokens] = {}
        order = sorted(range(len(posteriors)), key=lambda i: -len(posteriors[i]))
        for begin in range(0, len(order), batch):
            chosen = order[begin : begin + batch]
            frames = [torch.from_numpy(posteriors[i]) for i in chosen]
            lengths = torch.tensor([len(f) for f in frames])
            best = search.decode(pad_sequence(frames, batch_first=True), lengths, n=1)
            found.update((i, hypotheses[0].tokens) for i, hypotheses in zip(chosen, best, strict=True))
        return [found[i] for i in range(len(posteriors))]

    return decode


def cpp_search(case: Case, folder: Path) -> Decode:
    """Return flashlight's search; it sums alignments and keeps 10 as ours does."""
    from flashlight.lib.text import decoder as flashlight
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    vocabulary = case.posteriors[0].shape[1]
    lm = flashlight.ZeroLM()
    if case.lm:
        dictionary = Dictionary()
        for token in range(vocabulary):
            dictionary.add_entry(str(token), token)  # the words of our ARPA files
        case.lm.save(folder / "lm.arpa")
        lm = KenLM(str(folder / "lm.arpa"), dictionary)
    options = flashlight.LexiconFreeDecoderOptions(
        beam_size=BEAM,
        beam_size_token=TOKEN_BEAM + 1,  # the blank is one of them
        beam_threshold=1e9,
        lm_weight=LM_WEIGHT * float(np.log(10)) if case.lm else 0.0,  # KenLM's logarithms are decimal
        sil_score=0.0,
        log_add=True,
        criterion_type=flashlight.CriterionType.CTC,
    )
    search = flashlight.LexiconFreeDecoder(options, lm, BLANK, BLANK, [])

    def decode(posteriors: Sequence[np.ndarray]) -> list[Tokens]:
        best = (search.decode(p.ctypes.data, *p.shape)[0].tokens for p in posteriors)
        return [tuple(token for token, _ in groupby(path) if token != BLANK) for path in best]

    return decode


def textbook_search(case: Case) -> Decode:
    """Return the search of loops and dictionaries."""
    search = TextbookBeam(BEAM, TOKEN_BEAM, case.lm, LM_WEIGHT)
    return lambda posteriors: [search.decode(p)[0] for p in posteriors]


def better(case: Case, ours: Sequence[Tokens], theirs: Sequence[Tokens]) -> float | None:
    """Return the share of differing hypotheses in which ours has the higher score; None where all are the same."""
    differing = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if not differing:
        return None

    def score(i: int, tokens: Tokens) -> float:
        frames = torch.from_numpy(case.posteriors[i])
        loss = torch.nn.functional.ctc_loss(
            frames[:, None],
            torch.tensor([tokens], dtype=torch.long),
            torch.tensor([len(frames)]),
            torch.tensor([len(tokens)]),
            reduction="sum",
        )
        return -float(loss) + (LM_WEIGHT * log_prob(case.lm, tokens) if case.lm else 0.0)

    return _share(score(i, ours[i]) > score(i, theirs[i]) for i in differing)


def summarise(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return all cases, and the smallest ratio of those without and of those with a language model."""
    results: dict[str, Any] = {"cases": measured}
    for model in ("", "_lm"):
        chosen = [m for name, m in measured.items() if name.endswith(" lm") == bool(model)]
        for ratio in ("ratio_vs_cpp", "ratio_vs_textbook"):
            results[ratio + model] = {b: min(m[ratio][b] for m in chosen) for b in ("b1", "b32")}
    return results


def as_table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the cases as Markdown."""
    lines = [
        "| posteriors | V | raysr b1, µs a frame | b32 | C++ | textbook | C++ / b1 | C++ / b32 | textbook / b32 "
        "| same as C++ (ours better) | as textbook (ours better) |",
        "|---" * 11 + "|",
    ]
    for name, m in measured.items():
        cells = [
            name,
            m["vocabulary"],
            *m["us_per_frame"].values(),
            *m["ratio_vs_cpp"].values(),
            m["ratio_vs_textbook"]["b32"],
            *(_agreement(m, other) for other in ("cpp", "textbook")),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _agreement(measured: Mapping[str, Any], other: str) -> str:
    ours = measured["better"][other]
    return f"{measured['same'][other]}" + ("" if ours is None else f" ({ours})")


def _ratios(seconds: Mapping[str, Sequence[float]], other: str) -> dict[str, float]:
    """Return how many times as long as ours ``other`` took, by batch size: the median over the rounds."""
    return {
        batch: round(
            statistics.median(b / a for a, b in zip(seconds[f"raysr {batch}"], seconds[other], strict=True)),
            2,
        )
        for batch in ("b1", "b32")
    }


def _share(truths: Iterable[bool]) -> float:
    chosen = list(truths)
    return round(sum(chosen) / len(chosen), 3)


if __name__ == "__main__":
    main()
