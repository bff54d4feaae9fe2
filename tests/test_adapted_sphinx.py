"""PocketSphinx's model adapted by SphinxTrain: a student's teacher of the benchmarks."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.adapted_sphinx import adapt, programs, write_mixture_weights
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.evaluate.wer import score, total
from raysr.teachers.base import TeacherContext
from raysr.teachers.pocketsphinx import PocketSphinx


def test_mixture_weights_are_those_that_the_decoder_reads(tmp_path: Path) -> None:
    senones, gaussians, streams = 5, 4, 3
    logs = np.random.default_rng(0).integers(0, 90, (streams, gaussians, senones), np.uint8)
    words = b"".join(struct.pack("<i", len(w) + 1) + w + b"\0" for w in (b"made up", b"feature_count 3"))
    content = words + struct.pack("<3i", 0, gaussians, senones) + logs.tobytes()
    (tmp_path / "sendump").write_bytes(content)
    write_mixture_weights(tmp_path / "sendump", tmp_path / "weights")
    header, _, body = (tmp_path / "weights").read_bytes().partition(b"endhdr\n")
    assert header.startswith(b"s3\nversion 1.0\n")
    assert (len(header) + len(b"endhdr\n")) % 4 == 0
    assert struct.unpack_from("<5i", body) == (0x11223344, senones, streams, gaussians, logs.size)
    weights = np.frombuffer(body, "<f4", offset=20).reshape(senones, streams, gaussians)
    assert weights.sum(-1) == pytest.approx(1)
    steps = -np.log(weights / weights.max(-1, keepdims=True)) / np.log(1.0001) / 1024
    least = logs.min(1, keepdims=True)
    np.testing.assert_allclose(steps.transpose(1, 2, 0), logs - least, atol=1e-2)


@pytest.mark.skipif(None in programs().values(), reason="needs sphinxtrain, pocketsphinx, sphinxbase-utils")
def test_an_adapted_model_hears_the_voices_that_it_was_adapted_to(tmp_path: Path) -> None:
    utterances = [u for u in demo_corpus().labelled if u.tags["engine"] == "espeak"][:60]
    strange = replace(utterances[0], id="strange", text="xyzzyx plugh")  # no pronunciations: left out
    hmm = adapt([*utterances, strange], tmp_path / "hmm")
    assert {p.name for p in tmp_path.iterdir()} == {"hmm"}
    errors = {}
    for name, place in (("before", None), ("adapted", str(hmm))):
        teacher = PocketSphinx(PocketSphinx.Config(hmm=place), TeacherContext())
        said = teacher.transcribe([load_waveform(u) for u in utterances[:12]])
        rows = score(
            [u.id for u in utterances[:12]], [u.text or "" for u in utterances[:12]], [o.text for o in said]
        )
        errors[name] = total(row.words for row in rows).errors
    assert errors["adapted"] < 0.8 * errors["before"]
