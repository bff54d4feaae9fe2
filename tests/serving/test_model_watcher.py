"""The newest good entry of the pool goes live under running streams; what is damaged is refused, and said so."""

import contextlib
import gc
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from endpoint import Server, messages, pcm16, publish, said, transcribed, until
from toy_language import relative
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from raysr.model.chunking import CHUNKING
from raysr.model.model import AsrModel
from raysr.pool import Recogniser
from raysr.serving.models import ModelWatcher
from raysr.serving.promotion import PromotionConfig
from raysr.serving.settings import UserConfig
from raysr.stream.session import Session
from raysr.text.tokeniser import Tokeniser, TokeniserConfig

CLOSE = json.dumps({"type": "CloseStream"})


def damage(pool: Path, name: str) -> None:
    weights = pool / name / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)


def health(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def versions(found: list[dict[str, Any]]) -> list[str]:
    return [m["metadata"]["model_info"]["version"] for m in found if m.get("is_final")]


def test_the_newest_good_entry_is_served(tmp_path: Path, recogniser: Recogniser) -> None:
    watcher = ModelWatcher(str(tmp_path), None, CHUNKING)
    assert not watcher.poll()
    publish(tmp_path, "a", recogniser, cycle=0)
    publish(tmp_path, "b", relative(recogniser), cycle=1)
    assert watcher.poll()
    assert watcher.current is not None
    assert watcher.current.version == "b"
    assert not watcher.poll()
    publish(tmp_path, "older", recogniser, cycle=0)
    assert not watcher.poll()


def test_damaged_entries_are_refused_with_their_reason(tmp_path: Path, recogniser: Recogniser) -> None:
    publish(tmp_path, "good", recogniser, cycle=0)
    publish(tmp_path, "flipped", recogniser, cycle=1)
    publish(tmp_path, "headless", recogniser, cycle=2)
    publish(tmp_path, "missing", recogniser, cycle=3)
    damage(tmp_path, "flipped")
    (tmp_path / "headless" / "manifest.json").write_text("{")
    (tmp_path / "missing" / "tokenizer.model").unlink()
    watcher = ModelWatcher(str(tmp_path), None, CHUNKING)
    assert watcher.poll()
    assert watcher.current is not None
    assert watcher.current.version == "good"
    assert set(watcher.refused) == {"flipped", "headless", "missing"}
    assert "model.safetensors is damaged" in watcher.refused["flipped"]
    assert "incomplete" in watcher.refused["headless"]
    assert "tokenizer.model is missing" in watcher.refused["missing"]
    shutil.rmtree(tmp_path / "missing")
    shutil.rmtree(tmp_path / "flipped")
    publish(tmp_path, "flipped", recogniser, cycle=1)
    assert watcher.poll()
    assert watcher.current.version == "flipped"
    assert set(watcher.refused) == {"headless"}


def test_an_entry_with_other_tokens_has_to_be_pinned(tmp_path: Path, recogniser: Recogniser) -> None:
    publish(tmp_path, "a", recogniser, cycle=0)
    tokeniser = Tokeniser.train(["hgfedcba"] * 9, TokeniserConfig(kind="char"))
    other = AsrModel(recogniser.config.model, tokeniser.vocab_size)
    publish(tmp_path, "b", replace(recogniser, model=other, tokeniser=tokeniser, lm=None), cycle=1)
    watcher = ModelWatcher(str(tmp_path), "a", CHUNKING)
    assert watcher.poll()
    watcher.pin(None)
    assert not watcher.poll()
    assert watcher.current is not None
    assert watcher.current.version == "a"
    assert watcher.refused == {"b": "it has other tokens than a; pin it to serve it"}
    watcher.pin("b")
    assert watcher.poll()
    assert watcher.current.version == "b"


def test_an_entry_that_others_outdo_is_not_promoted_while_they_are_there(
    tmp_path: Path, recogniser: Recogniser
) -> None:
    publish(tmp_path, "a", recogniser, cycle=0, dev_wer=0.20)
    watcher = ModelWatcher(str(tmp_path), None, CHUNKING, promotion=PromotionConfig(worse=0.1))
    assert watcher.poll()
    assert watcher.current is not None
    publish(tmp_path, "worse", recogniser, cycle=1, dev_wer=0.23)
    assert not watcher.poll()
    assert watcher.current.version == "a"
    assert watcher.refused["worse"].startswith(
        "its dev_wer of 0.23 is more than 10% above the 0.2 of a; pin it"
    )
    publish(tmp_path, "as-good", recogniser, cycle=2, dev_wer=0.22)
    assert watcher.poll()
    assert watcher.current.version == "as-good"
    publish(tmp_path, "untold", recogniser, cycle=3)
    assert watcher.poll()
    assert watcher.current.version == "untold"
    publish(tmp_path, "collapsed", recogniser, cycle=4, dev_wer=0.01, unfit="it says nothing")
    assert not watcher.poll()  # nor is anything measured by that one
    assert set(watcher.refused) == {"worse", "collapsed"}
    watcher.pin("worse")
    assert watcher.poll()
    assert watcher.current.version == "worse"
    watcher.pin(None)
    assert watcher.poll()
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "untold")
    shutil.rmtree(tmp_path / "as-good")
    assert watcher.poll()  # there is none better any more
    assert watcher.current.version == "worse"
    assert set(watcher.refused) == {"collapsed"}


def test_entries_with_other_tokens_are_no_rivals(tmp_path: Path, recogniser: Recogniser) -> None:
    tokeniser = Tokeniser.train(["hgfedcba"] * 9, TokeniserConfig(kind="char"))
    other = AsrModel(recogniser.config.model, tokeniser.vocab_size)
    stranger = replace(recogniser, model=other, tokeniser=tokeniser, lm=None)
    publish(tmp_path, "stranger", stranger, cycle=0, dev_wer=0.01)
    publish(tmp_path, "ours", recogniser, cycle=1, dev_wer=0.5)
    watcher = ModelWatcher(str(tmp_path), None, CHUNKING, promotion=PromotionConfig())
    assert watcher.poll()
    assert watcher.current is not None
    assert watcher.current.version == "ours"


def test_a_pinned_entry_stays_and_a_missing_one_is_reported(tmp_path: Path, recogniser: Recogniser) -> None:
    publish(tmp_path, "a", recogniser, cycle=0)
    publish(tmp_path, "b", recogniser, cycle=1)
    pinned = ModelWatcher(str(tmp_path), "a", CHUNKING)
    assert pinned.poll()
    assert pinned.current is not None
    assert pinned.current.version == "a"
    absent = ModelWatcher(str(tmp_path), "c", CHUNKING)
    assert not absent.poll()
    assert "no entry 'c'; entries: a, b" in (absent.trouble or "")
    publish(tmp_path, "c", recogniser, cycle=2)
    assert absent.poll()
    assert absent.trouble is None


@pytest.fixture
def changing(start: Callable[..., Server], tmp_path: Path, recogniser: Recogniser) -> Server:
    publish(tmp_path / "pool", "one", recogniser, cycle=0)
    return start(pool=str(tmp_path / "pool"))


def test_a_new_entry_goes_live_under_running_streams(changing: Server, recogniser: Recogniser) -> None:
    with changing.listen() as running:
        running.send(pcm16("bad cafe, "))
        first = json.loads(running.recv(timeout=20))
        assert (said([first]), versions([first])) == ("bad cafe", ["one"])
        publish(changing.pool, "two", relative(recogniser), cycle=1)
        until(lambda: health(changing)["model"] == "two")
        with changing.listen() as fresh:
            fresh.send(pcm16("beg"))
            fresh.send(CLOSE)
            assert versions(messages(fresh)) == ["two"]
        running.send(pcm16("head ache"))
        running.send(CLOSE)
        rest = messages(running)
        assert (said(rest), versions(rest)) == ("head ache", ["two"])


def test_a_damaged_entry_changes_nothing_and_health_says_why(
    changing: Server, recogniser: Recogniser
) -> None:
    staging = changing.pool.parent / "staging"
    publish(staging, "broken", recogniser, cycle=5)
    damage(staging, "broken")
    with changing.listen() as running:
        running.send(pcm16("bad cafe, "))
        assert versions([json.loads(running.recv(timeout=20))]) == ["one"]
        (staging / "broken").rename(changing.pool / "broken")
        until(lambda: "broken" in health(changing)["pool"]["refused"])
        assert "damaged" in health(changing)["pool"]["refused"]["broken"]
        running.send(pcm16("head"))
        running.send(CLOSE)
        rest = messages(running)
        assert (said(rest), versions(rest)) == ("head", ["one"])


def test_a_third_model_waits_until_the_first_has_gone(tmp_path: Path, recogniser: Recogniser) -> None:
    watcher = ModelWatcher(str(tmp_path), None, CHUNKING, slots=2)
    publish(tmp_path, "one", recogniser, cycle=0)
    assert watcher.poll()
    assert watcher.current is not None
    session = Session(watcher.current.streaming)
    publish(tmp_path, "two", relative(recogniser), cycle=1)
    assert watcher.poll()
    assert watcher.older == 1
    publish(tmp_path, "three", relative(recogniser), cycle=2)
    publish(tmp_path, "four", relative(recogniser), cycle=3)
    assert not watcher.poll()
    assert watcher.current.version == "two"
    session.adopt(watcher.current.streaming)
    session.refresh()
    assert watcher.older == 0
    assert watcher.poll()
    assert watcher.current.version == "four"


def test_clients_that_are_gone_hold_no_model(changing: Server, recogniser: Recogniser) -> None:
    """Errors keep what they passed through alive until Python looks for cycles, which may be a long while."""
    gc.collect()
    gc.disable()
    try:
        with changing.listen() as socket:
            socket.send(pcm16("bad cafe"))  # and is gone
        with changing.listen() as socket:
            socket.send(CLOSE)
            socket.recv()  # gone before all was told
        with changing.listen() as socket:
            socket.send("neither audio nor a control message")
            with contextlib.suppress(ConnectionClosed):
                messages(socket)
        for cycle, name in enumerate(("second", "third"), 1):
            publish(changing.pool, name, relative(recogniser), cycle)
            until(lambda name=name: health(changing)["model"] == name)
        until(lambda: health(changing)["older_models"] == 0)
    finally:
        gc.enable()


def test_a_stream_that_falls_silent_in_a_sentence_lets_the_old_model_go(
    changing: Server, recogniser: Recogniser
) -> None:
    with changing.listen(interim_results="true") as socket:
        socket.send(pcm16("bad cafe"))
        assert not json.loads(socket.recv(timeout=20))["is_final"]
        publish(changing.pool, "two", relative(recogniser), cycle=1)
        until(lambda: health(changing)["model"] == "two")
        assert health(changing)["older_models"] == 1
        until(lambda: health(changing)["older_models"] == 0)
        socket.send(pcm16("head"))
        socket.send(CLOSE)
        found = messages(socket)
    assert said(found) == "bad cafe head"
    assert versions(found) == ["one", "two"]
    assert [m["speech_final"] for m in found if m.get("is_final")] == [True, False]


def test_an_older_entry_can_be_pinned_and_let_go_while_streams_run(
    changing: Server, recogniser: Recogniser
) -> None:
    publish(changing.pool, "two", relative(recogniser), cycle=1)
    until(lambda: health(changing)["model"] == "two")
    with changing.listen() as running:
        for pinned, live in (("one", "one"), (None, "two"), ("one", "one")):
            changing.reconfigure(UserConfig(entry=pinned))
            until(lambda live=live: health(changing)["model"] == live)
        running.send(pcm16("bad"))
        running.send(CLOSE)
        found = messages(running)
        assert (said(found), versions(found)) == ("bad", ["one"])
    publish(changing.pool, "three", relative(recogniser), cycle=2)
    time.sleep(0.3)
    assert health(changing)["model"] == "one"
    changing.reconfigure(UserConfig(entry="none-such"))
    until(lambda: "no entry 'none-such'" in (health(changing)["pool"]["trouble"] or ""))
    assert health(changing)["model"] == "one"


def test_a_drain_gives_every_stream_its_finals_and_takes_nobody_in(start: Callable[..., Server]) -> None:
    server = start()
    with server.listen() as deepgram, connect(server.url.replace("http", "ws") + "/vosk") as vosk:
        deepgram.send(pcm16("bad cafe"))
        vosk.send('{"config": {"sample_rate": 16000}}')
        vosk.send(pcm16("head"))
        vosk.recv(timeout=20)
        server.reconfigure(UserConfig(drain=True))
        found = messages(deepgram)
        assert said(found) == "bad cafe"
        assert (found[-1]["variant"], deepgram.close_code) == ("RESTARTS", 1012)
        assert [answer.get("text") for answer in messages(vosk)] == ["head"]
        assert vosk.close_code == 1012
    with server.listen() as late:
        assert [m["variant"] for m in messages(late)] == ["RESTARTS"]
        assert late.close_code == 1012
    with pytest.raises(openai.InternalServerError, match="restarts"):
        transcribed(server, pcm16("bad"))
    assert health(server)["status"] == "draining"
    server.reconfigure(UserConfig())
    until(lambda: health(server)["status"] == "ok")
    assert transcribed(server, pcm16("bad")) == "bad"


def test_many_changes_drop_no_stream_and_no_word(changing: Server, recogniser: Recogniser) -> None:
    said_by: list[str] = []
    done = threading.Event()

    def talk() -> None:
        with changing.listen() as socket:
            for _ in range(6):
                socket.send(pcm16("bad cafe, "))
                time.sleep(0.1)
            socket.send(CLOSE)
            said_by.append(said(messages(socket)))

    def change() -> None:
        for number in range(1, 8):
            publish(changing.pool, f"change-{number}", relative(recogniser), cycle=number)
            done.wait(0.15)

    threads = [threading.Thread(target=talk) for _ in range(4)] + [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said_by == [" ".join(["bad cafe"] * 6)] * 4
