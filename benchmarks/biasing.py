"""What phrases that a request expects are worth: names that a model never saw, ten wanted among a hundred others.

The model and its language model know the utterances that hold none of the open names. Every test utterance that does
comes with a list: those names and further open ones, ten in all, and a hundred that nobody says. It is counted, with
and without the language model, at the default boost, and at the one that recalls most of dev's names without more
errors in its other words.
"""

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.joined import JoinedCorpus, open_names
from benchmarks.model_scores import Scorer, tuned
from raysr.corpus.demo import demo_corpus
from raysr.corpus.features import FeatureCache
from raysr.corpus.utterance import Utterance
from raysr.decode.decode_config import DecodeConfig
from raysr.evaluate.rare_words import RareWords, rare_words
from raysr.ipl.config import RunConfig
from raysr.pool import Recogniser
from raysr.text.normalise import normalise

WANTED = 10
BOOSTS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
DISTRACTING = (
    "aaron, adelaide, albert, alfred, amanda, anders, angela, arthur, astrid, beatrice, benedict, bianca, "
    "boris, brigitte, calvin, cecilia, clement, conrad, dagmar, damian, deborah, dorothy, edgar, edwin, "
    "elvira, emil, esther, felix, florence, frederick, gerald, giovanni, gloria, gustav, harold, henrik, "
    "hugo, irene, isabel, jacob, jerome, joachim, judith, kathleen, konrad, lambert, leopold, lorenzo, "
    "mabel, marcel, matilda, melanie, mohammed, nadia, nathan, noel, ophelia, oscar, pamela, pascal, "
    "philippa, quentin, rafael, raymond, regina, roland, rupert, ruth, sabrina, sebastian, sigrid, "
    "sylvia, theodore, ursula, valerie, vincent, wanda, wilfred, xavier, yvonne, ankara, bangkok, "
    "belgrade, bergen, bordeaux, bucharest, dakar, durban, florida, havana, krakow, lima, manila, "
    "marseille, melbourne, albatross, avalanche, cascade, emerald, zeppelin"
)


def score_biasing(
    recogniser: Recogniser, config: RunConfig, corpus: JoinedCorpus, cache: Path
) -> dict[str, Any]:
    """Return, with the language model and without, counts on the tests' utterances that hold open names."""
    features = FeatureCache(cache, config.features)
    scorer = Scorer(recogniser, features)
    dev = [u for part in corpus.dev.values() for u in part]
    with_lm = tuned(recogniser, config, dev, features)
    without = with_lm.model_copy(update={"lm_weight": 0.0, "length_bonus": 0.0})
    return {"lm": _biased(scorer, corpus, with_lm, True), "no_lm": _biased(scorer, corpus, without, False)}


def _biased(scorer: Scorer, corpus: JoinedCorpus, decode: DecodeConfig, lm: bool) -> dict[str, Any]:
    """Return the boosts, and counts of every test set without one, at the default and at that chosen on dev."""

    def counted(utterances: Sequence[Utterance], boost: float) -> RareWords:
        lists = [phrases(u, boost) for u in utterances] if boost else None
        return count(utterances, scorer.texts(utterances, decode, lm=lm, phrases=lists))

    dev = with_names([u for part in corpus.dev.values() for u in part])
    plain = counted(dev, 0.0)
    tried = {boost: counted(dev, boost) for boost in BOOSTS}
    fair = [boost for boost, found in tried.items() if found.errors <= plain.errors]
    boosts = {
        "without": 0.0,
        "default": decode.phrase_boost,
        "chosen": max(fair or BOOSTS[:1], key=lambda b: tried[b].recalled),
    }
    tests = {name: with_names(part) for name, part in corpus.tests.items()}
    sets = {
        name: {way: asdict(counted(part, boost)) for way, boost in boosts.items()}
        for name, part in tests.items()
    }
    return {"boosts": boosts, "lm_weight": decode.lm_weight, "sets": sets}


def with_names(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances that hold open names."""
    return [u for u in utterances if open_names(demo_corpus(), u)]


def phrases(utterance: Utterance, boost: float) -> Mapping[str, float]:
    """Return the list that comes with an utterance: what is wanted, then what only distracts."""
    said = open_names(demo_corpus(), utterance)
    others = sorted(demo_corpus().open_names - set(said))
    draws = random.Random(zlib.crc32(utterance.id.encode()))
    wanted = said + draws.sample(others, max(0, WANTED - len(said)))
    return dict.fromkeys([*wanted, *DISTRACTING.split(", ")], boost)


def count(utterances: Sequence[Utterance], texts: Sequence[str]) -> RareWords:
    """Count the open names over all utterances, and errors among the other words."""
    references = [normalise(u.text or "") for u in utterances]
    return rare_words(references, [normalise(text) for text in texts], demo_corpus().open_names)
