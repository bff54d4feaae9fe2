"""A corpus of tones and a model so small that a run takes seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeCorpus = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_config(make_corpus: MakeCorpus) -> Callable[[Path], dict[str, Any]]:
    """Return a function that writes a corpus into a folder and returns the configuration of a run over it."""
    return lambda folder: _tiny_config(folder, make_corpus)


def _tiny_config(folder: Path, make_corpus: MakeCorpus) -> dict[str, Any]:
    """Write a corpus and return the configuration of a two-cycle run over it, without Ray."""
    paths = {
        name: make_corpus(folder, name, 6, seed) for seed, name in enumerate(["labelled", "dev", "test"])
    }
    paths["unlabelled"] = make_corpus(folder, "unlabelled", 6, seed=9, text=False)
    (folder / "audio" / "unlabelled-3.wav").write_text("this is text: a broken file")
    truth = folder / "truth.jsonl"
    truth.write_text(
        "".join(json.dumps({"id": f"unlabelled-{n}", "text": "one two"}) + "\n" for n in range(6))
    )
    return {
        "run": {"dir": str(folder / "run"), "cycles": 2},
        "data": {
            "labelled": str(paths["labelled"]),
            "unlabelled": str(paths["unlabelled"]),
            "dev": str(paths["dev"]),
            "tests": {"clean": str(paths["test"])},
            "truth": str(truth),
        },
        "lm": {"order": 3},
        "model": {
            "encoder": {"dim": 16, "layers": 1, "heads": 2, "feed_forward": 16, "kernel": 3},
            "decoder": {"heads": 2, "feed_forward": 16},
        },
        "recogniser": {"kind": "local", "block": 2},
        "filter": [{"kind": "score", "keep": 0.5}],
        "trainer": {
            "local": True,
            "steps": 2,
            "batch_seconds": 3.0,
            "tuning": {"lm_weights": [0.5], "length_bonuses": [0.0]},
        },
    }
