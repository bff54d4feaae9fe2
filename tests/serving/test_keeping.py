"""Nothing is kept of what users say, unless the configuration says so; then it is what it says, where and how long."""

import json
import logging
import stat
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from endpoint import Server, messages, pcm16, said, until, wav
from websockets.sync.client import connect

from raysr.audio.files import decode
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest
from raysr.errors import ConfigError
from raysr.serving.keeping import KeepConfig, expire
from raysr.serving.run import health
from raysr.serving.settings import ServingConfig

CLOSE = json.dumps({"type": "CloseStream"})
SAID = "bad cafe, head ache"


def speak(server: Server, pcm: bytes, **query: Any) -> str:
    with server.listen(**query) as socket:
        for first in range(0, len(pcm), 3200):
            socket.send(pcm[first : first + 3200])
        socket.send(CLOSE)
        return said(messages(socket))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_nothing_is_kept_unless_it_is_asked_for(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    server = start()
    assert speak(server, pcm16(SAID)) == "bad cafe head ache"
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    sdk.audio.transcriptions.create(model="any", file=("speech.wav", wav(SAID)))
    assert files(tmp_path) == []


def test_streams_and_files_are_kept_as_a_manifest_and_its_texts(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(keep={"folder": str(tmp_path / "kept"), "days": 30})
    pcm = pcm16(SAID)
    speak(server, pcm)
    speak(server, pcm, sample_rate=16000, mip_opt_out="true")  # who does not want it is not kept
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    sdk.audio.transcriptions.create(model="any", file=("speech.wav", wav(SAID, seed=6)))
    (day,) = (tmp_path / "kept").iterdir()
    # a request is over a moment after its answer
    until(lambda: (day / "texts.jsonl").exists() and (day / "texts.jsonl").read_text().count("\n") == 4)
    assert day.name in {datetime.now(UTC).date().isoformat(), date.today().isoformat()}
    assert stat.S_IMODE(day.stat().st_mode) == 0o700
    assert len(list(day.glob("*.wav"))) == 2
    utterances = list(open_manifest(day / "audio.jsonl"))
    texts = [json.loads(line) for line in (day / "texts.jsonl").read_text().splitlines()]
    assert [t["text"] for t in texts] == ["bad cafe", "head ache"] * 2
    assert [u.id for u in utterances] == [t["id"] for t in texts]
    assert {t["model"] for t in texts} == {"first"}
    assert all(u.text is None for u in utterances), "what a model heard is no transcript"
    first = utterances[0]
    assert decode(first.audio).tobytes() == (np.frombuffer(pcm, "<i2").astype(np.float32) / 32768).tobytes()
    for utterance in utterances:
        samples = load_waveform(utterance)
        assert len(samples) == pytest.approx(16000 * utterance.duration, abs=16)
        assert np.abs(samples).max() > 0.01


@pytest.mark.parametrize(
    ("what", "there"), [("audio", {".jsonl": 1, ".wav": 0}), ("text", {".wav": 1, ".jsonl": 1})]
)
def test_audio_and_text_are_kept_apart(
    start: Callable[..., Server], tmp_path: Path, what: str, there: dict[str, int]
) -> None:
    speak(start(keep={"folder": str(tmp_path), "days": 1, what: False}), pcm16(SAID))
    found = [path.suffix for path in files(tmp_path)]
    assert {suffix: found.count(suffix) for suffix in there} == there
    assert (what == "text") == (not list(tmp_path.rglob("texts.jsonl")))


def test_a_disk_that_cannot_be_written_harms_no_stream(
    start: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    server = start(keep={"folder": str(tmp_path / "file"), "days": 1})
    with caplog.at_level(logging.ERROR):
        assert speak(server, pcm16(SAID)) == "bad cafe head ache"
    assert any("is not kept" in record.message for record in caplog.records)
    full = start(keep={"folder": str(tmp_path / "full"), "days": 1, "free_gb": 1e9})
    assert speak(full, pcm16(SAID)) == "bad cafe head ache"
    assert files(tmp_path / "full") == []


def test_a_client_that_leaves_is_kept_as_far_as_it_came(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(keep={"folder": str(tmp_path), "days": 1})
    pcm = pcm16(SAID)
    with server.listen() as socket:
        socket.send(pcm)
        while "transcript" not in (text := str(socket.recv(timeout=20))) or "bad cafe" not in text:
            pass
        socket.socket.close()
    for _ in range(200):
        if list(tmp_path.rglob("*.wav")):
            break
        with connect(server.url.replace("http", "ws") + "/v1/listen?encoding=linear16") as other:
            other.close()
    (kept,) = tmp_path.rglob("*.wav")
    assert len(decode(kept)) == len(pcm) // 2


def test_days_that_are_too_old_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("2026-01-01", "2026-01-09", "2026-01-10", "2026-99-99", "notes", "2026-01-01.txt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"x")
    expire(KeepConfig(folder=str(tmp_path), days=2), date(2026, 1, 12))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "2026-01-01.txt",
        "2026-01-10",
        "2026-99-99",
        "notes",
    ]


def test_an_endpoint_deletes_old_days_when_it_starts(start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "2001-01-01").mkdir()
    server = start(keep={"folder": str(tmp_path), "days": 1})
    for _ in range(100):
        if not list(tmp_path.iterdir()):
            break
        speak(server, pcm16("bad")[:3200])
    assert not (tmp_path / "2001-01-01").exists()


def test_health_says_what_is_kept(start: Callable[..., Server], tmp_path: Path) -> None:
    keeping = start(keep={"folder": str(tmp_path), "days": 7, "text": False})
    told, nothing = health(keeping.url), health(start().url)
    assert told is not None
    assert told["keeps"] == {"days": 7, "audio": True, "text": False}
    assert nothing is not None
    assert nothing["keeps"] is None


def test_how_long_has_to_be_said() -> None:
    with pytest.raises(ConfigError, match="days"):
        ServingConfig.parse({"pool": "p", "keep": {"folder": "kept"}})
