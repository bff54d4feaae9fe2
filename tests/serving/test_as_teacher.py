"""The endpoint labels for another run as its pool entry does."""

import pytest
from endpoint import Server
from toy_language import sung

from raysr.config import Spec
from raysr.teachers.base import TEACHERS, TeacherContext

SAID = ["bad cafe", "head ache", "gab beg"]


@pytest.mark.parametrize("audio", ["flac", "wav"])
def test_the_label_is_what_the_pool_entry_says(audio: str, server: Server) -> None:
    """It knows no ``verbose_json``: the teacher finds that out at its start."""
    waveforms = [sung(text, seed=seed) for seed, text in enumerate(SAID)]
    here = Spec(kind="pool_model", entries=[str(server.pool / "first")])  # type: ignore[call-arg]
    there = Spec(kind="openai", base_url=f"{server.url}/v1", model="whisper-1", audio=audio)  # type: ignore[call-arg]
    remote = TEACHERS.build(there, TeacherContext())
    texts = [output.text for output in remote.transcribe(waveforms)]
    assert (remote.name, remote.version) == ("openai:whisper-1", "first")
    assert texts == [o.text for o in TEACHERS.build(here, TeacherContext()).transcribe(waveforms)] == SAID
