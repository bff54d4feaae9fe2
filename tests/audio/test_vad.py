"""The detector is Silero's own, however the audio is cut, and segments hold all the speech that it finds."""

import itertools
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.audio import vad
from raysr.audio.speech_segments import FRAME_S, SegmentConfig, segments, speech_frames
from raysr.audio.vad import FRAME, SpeechDetector, speech_probabilities
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.errors import ConfigError


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Three sentences with silence between them."""
    said = [load_waveform(u) for u in list(demo_corpus().tests["clean"])[:3]]
    return np.concatenate([part for samples in said for part in (np.zeros(20000, np.float32), samples)])


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*")
def test_it_computes_what_the_package_does(spoken: np.ndarray) -> None:
    expected = probabilities_of_the_package(spoken, vad._weights())
    assert np.abs(speech_probabilities([spoken]) - expected).max() < 1e-4
    assert max(expected) > 0.9
    assert min(expected) < 0.1


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*")
def test_its_weights_decide_as_those_of_the_package_do(spoken: np.ndarray) -> None:
    theirs = speech_frames(probabilities_of_the_package(spoken), 0.5)
    assert (theirs == speech_frames(speech_probabilities([spoken]), 0.5)).mean() > 0.97


def probabilities_of_the_package(
    samples: np.ndarray, weights: dict[str, torch.Tensor] | None = None
) -> np.ndarray:
    """Run the package's own model frame by frame, with ``weights`` in the place of its own."""
    origin = find_spec("silero_vad").origin  # type: ignore[union-attr]
    theirs = torch.jit.load(str(Path(origin).parent / "data" / "silero_vad.jit"))  # type: ignore[arg-type]
    if weights:
        theirs._model.load_state_dict({name: weights[_our_name(name)] for name in theirs._model.state_dict()})
    padded = np.pad(samples, (0, -len(samples) % FRAME))
    with torch.inference_mode():
        return np.array([float(theirs(torch.from_numpy(f), 16000)) for f in padded.reshape(-1, FRAME)])


def _our_name(name: str) -> str:
    convolution = re.fullmatch(r"encoder\.(\d)\.reparam_conv\.(\w+)", name)
    if convolution:
        return f"conv{int(convolution[1]) + 1}.{convolution[2]}"
    name = name.replace("stft.forward_basis_buffer", "stft_conv.weight").replace("decoder.rnn", "lstm_cell")
    return name.replace("decoder.decoder.2", "final_conv")


@given(st.lists(st.integers(1, 5000), max_size=8))
def test_the_cut_of_the_input_changes_nothing(sizes: list[int]) -> None:
    samples = np.random.default_rng(0).standard_normal(20000).astype(np.float32) / 10
    detector, found, position = SpeechDetector(), [], 0
    for size in [*sizes, 20000]:
        found.append(detector.push(samples[position : position + size]))
        position = min(20000, position + size)
    found.append(detector.finish())
    assert np.abs(np.concatenate(found) - speech_probabilities([samples])).max() < 1e-5


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install silero-vad"):
        vad._weights.__wrapped__()


PROBABILITIES = st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(1, 400)), max_size=30).map(
    lambda runs: np.repeat([p for p, _ in runs], [n for _, n in runs]).astype(np.float32)
)
CONFIGS = st.builds(
    lambda longest, shortest, pause, pad: SegmentConfig(
        longest=longest, shortest=shortest * longest / 2, pause=pause, pad=pad * longest / 4
    ),
    st.floats(1, 30), st.floats(0, 1), st.floats(0.05, 2), st.floats(0, 0.9),
)  # fmt: skip


@given(PROBABILITIES, CONFIGS)
def test_segments_hold_all_speech_and_keep_their_bounds(
    probabilities: np.ndarray, config: SegmentConfig
) -> None:
    duration = max(0.0, FRAME_S * (len(probabilities) - 0.5))
    found = segments(probabilities, duration, config)
    assert all(0 <= s.start < s.end <= duration for s in found)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert all(s.end - s.start <= config.longest + 1e-9 for s in found)
    centres = FRAME_S * (np.arange(len(probabilities)) + 0.25)
    held = np.zeros(len(probabilities), bool)
    for start, end in found:
        held |= (start <= centres) & (centres < end)
    assert held[speech_frames(probabilities, config.threshold)].all()


@given(PROBABILITIES, st.floats(0.2, 0.9))
def test_speech_begins_at_the_threshold_and_ends_below_it(
    probabilities: np.ndarray, threshold: float
) -> None:
    speaking, expected = False, []
    for probability in probabilities:
        if probability >= threshold:
            speaking = True
        elif probability < threshold - 0.15:
            speaking = False
        expected.append(speaking)
    assert speech_frames(probabilities, threshold).tolist() == expected


def test_sentences_are_found_and_speech_without_a_pause_is_cut_at_its_weakest(spoken: np.ndarray) -> None:
    found = segments(speech_probabilities([spoken]), len(spoken) / 16000, SegmentConfig())
    assert len(found) == 3
    endless = np.full(2000, 0.9, np.float32)
    endless[[300, 500, 900]] = 0.6
    places = [round(s.end / FRAME_S) for s in segments(endless, 64.0, SegmentConfig(longest=20, pad=0))]
    assert places[:2] == [500, 900]
