"""The page in a real browser, Debian's Chromium, with a microphone that plays a file."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from endpoint import Server, wav
from playwright.sync_api import Browser, Page, expect, sync_playwright
from toy_language import silence, sung

from raysr.audio.files import wav_bytes
from raysr.decode.words import Word
from raysr.serving.captions import srt, vtt
from raysr.serving.settings import UserConfig
from raysr.stream.events import Final

SAID = "bad cafe, head ache"
RATE = 48000
KEY = "a-key-of-sixteen-and-more"
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears: a second of nothing, words, and nothing."""
    file = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    parts = [silence(1.0, RATE), sung(SAID, RATE, seed=5), silence(3.0, RATE)]
    file.write_bytes(wav_bytes(np.concatenate(parts), RATE))
    return file


@pytest.fixture(scope="module")
def browser(spoken: Path) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        options = [
            "--no-sandbox",  # root's
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={spoken}%noloop",
        ]
        running = playwright.chromium.launch(executable_path=program, args=options)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own that fails the test where its scripts fail."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert failures == []


def opened(page: Page, server: Server) -> Page:
    page.goto(server.url.replace("127.0.0.1", "localhost"))
    expect(page.locator("#service")).to_have_text(re.compile(r"\d+ of \d+ sessions"))
    return page


def test_speech_becomes_captions_while_it_is_spoken(page: Page, server: Server) -> None:
    opened(page, server).click("#speak")
    expect(page.locator("#speak")).to_have_text("Stop")
    expect(page.locator(".segment").first).to_contain_text("bad")
    expect(page.locator(".segment")).to_have_count(2)
    page.click("#speak")
    expect(page.locator("#speak")).to_have_text("Speak")
    said = "".join(page.locator(".segment").all_text_contents())
    # the browser's own gain and echo control are between the microphone and us
    assert re.sub(r"\s", "", said).startswith("badcafe")
    assert "head" in said
    assert page.locator(".segment span").first.get_attribute("title").startswith("confidence 0.")
    expect(page.locator("#model")).to_have_text("first")
    for fact in ("#lag", "#delay", "#heard"):
        expect(page.locator(fact)).to_have_text(re.compile(r"^\d+\.\d s$"))
    expect(page.locator("#problem")).to_be_hidden()


def test_a_file_becomes_a_transcript_that_can_be_taken_along(
    page: Page, server: Server, tmp_path: Path
) -> None:
    opened(page, server)
    for button in ("#copy", "#txt", "#srt", "#vtt"):
        expect(page.locator(button)).to_be_disabled()
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(SAID))
    for _ in range(2):
        page.set_input_files("#file", file)
        expect(page.locator("#speak")).to_be_enabled()
    expect(page.locator(".segment")).to_have_count(4)
    assert [text.strip() for text in page.locator(".segment").all_text_contents()] == [
        "bad cafe",
        "head ache",
    ] * 2

    def saved(kind: str) -> str:
        with page.expect_download() as download:
            page.click(f"#{kind}")
        assert download.value.suggested_filename == f"captions.{kind}"
        return Path(download.value.path()).read_text()

    assert saved("txt") == "bad cafe\nhead ache\n" * 2
    times = re.findall(r"(\S+) --> (\S+)", saved("srt"))
    assert len(times) == 4
    assert times == sorted(times)
    assert saved("vtt").startswith("WEBVTT\n\n00:00:00.")
    page.click("#clear")
    expect(page.locator(".segment")).to_have_count(0)
    expect(page.locator("#placeholder")).to_be_visible()


def test_files_are_written_by_the_page_as_by_the_endpoint(page: Page, server: Server) -> None:
    draws, spoken = np.random.default_rng(0), [[Word("a<b&c", 0.5, 0.7, 1.0)]]
    for first in range(10, 3700, 100):  # segments of up to ninety words, fast and slow
        pace = draws.uniform(0.2, 0.9)
        letters = draws.integers(1, 15, draws.integers(1, 90))
        spoken.append(
            [Word("m" * n, first + pace * k, first + pace * (k + 1), 1.0) for k, n in enumerate(letters)]
        )
    finals = [Final("s", 0, "m", 0, 1, "", tuple(words), 1.0, "endpoint") for words in spoken]
    segments = json.dumps(
        [[{"word": w.text, "start": w.start, "end": w.end} for w in words] for words in spoken]
    )
    opened(page, server)
    for kind, expected in (("srt", srt(finals)), ("vtt", vtt(finals))):
        script = f"import('/static/transcript.js').then((m) => m.FORMATS.{kind}[1]({segments}))"
        assert page.evaluate(script) == expected


def test_phrases_are_sent_and_remembered(page: Page, server: Server, tmp_path: Path) -> None:
    opened(page, server).click("summary")
    page.fill("#phrases", "dad:10\n\n cafe ")
    file = tmp_path / "speech.wav"
    file.write_bytes(wav("bad"))
    page.set_input_files("#file", file)
    expect(page.locator(".segment")).to_contain_text("dad")
    page.reload()
    expect(page.locator("#phrases")).to_have_value("dad:10\n\n cafe ")
    page.fill("#phrases", "zoo")
    page.set_input_files("#file", file)
    expect(page.locator("#problem")).to_contain_text("never learned to write o z of 'zoo'")


def test_a_file_that_is_no_audio_is_told(page: Page, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("dear all")
    opened(page, server).set_input_files("#file", file)
    expect(page.locator("#problem")).to_contain_text("letter.txt")
    expect(page.locator("#speak")).to_be_enabled()


def test_a_key_is_asked_for_where_one_is_needed(
    page: Page, start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(f"me: {KEY}\n")
    server = start(keys=str(tmp_path / "keys"))
    opened(page, server).click("#speak")
    expect(page.locator("#problem")).to_contain_text("an API key is missing")
    expect(page.locator("#speak")).to_have_text("Speak")
    page.fill("#key", KEY)
    page.locator("#key").blur()
    page.click("#speak")
    expect(page.locator(".segment").first).to_contain_text("bad")
    page.click("#speak")
    file = tmp_path / "speech.wav"
    file.write_bytes(wav("beg"))
    expect(page.locator("#speak")).to_be_enabled()
    page.set_input_files("#file", file)
    expect(page.locator(".segment").last).to_contain_text("beg")


def test_a_key_that_no_browser_can_send_leaves_the_page_as_it_was(page: Page, server: Server) -> None:
    opened(page, server)
    page.evaluate("sessionStorage.setItem('key', 'abc/def==')")
    page.reload()
    page.click("#speak")
    expect(page.locator("#problem")).to_contain_text("This did not start")
    expect(page.locator("#speak")).to_have_text("Speak")
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.click("#speak")
    expect(page.locator(".segment").first).to_contain_text("bad")
    expect(page.locator("#file")).to_be_disabled()
    page.click("#speak")
    expect(page.locator("#file")).to_be_enabled()


def test_what_is_said_before_the_connection_stands_is_heard_and_a_stop_then_ends_it(
    page: Page, server: Server
) -> None:
    page.route_web_socket("**/v1/listen*", lambda route: (time.sleep(1.5), route.connect_to_server()))
    opened(page, server).click("#speak")
    expect(page.locator(".segment").first).to_contain_text("bad")
    page.click("#speak")
    expect(page.locator("#speak")).to_have_text("Speak")
    page.click("#speak")
    page.click("#speak")  # while it is still connecting
    expect(page.locator("#speak")).to_have_text("Speak")
    expect(page.locator("#service")).to_have_text(re.compile("0 of"))
    expect(page.locator("#problem")).to_be_hidden()


def test_it_says_what_is_kept_and_takes_no_for_an_answer(
    page: Page, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(keep={"folder": str(tmp_path / "kept"), "days": 30, "text": False})
    file = tmp_path / "speech.wav"
    file.write_bytes(wav(SAID))
    opened(page, server)
    expect(page.locator("#kept")).to_have_text("This server keeps what you say for 30 days.")
    page.locator("#private").check()
    page.locator("#file").set_input_files(file)
    expect(page.locator("#text")).to_contain_text("head ache")
    assert not list(tmp_path.glob("kept/*/*.wav"))
    page.locator("#private").uncheck()
    page.locator("#clear").click()
    page.locator("#file").set_input_files(file)
    expect(page.locator("#text")).to_contain_text("head ache")
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("kept/*/*.wav")):
        assert time.monotonic() < deadline
    assert len(list(tmp_path.glob("kept/*/*.jsonl"))) == 1


def test_a_page_of_a_server_that_keeps_nothing_says_nothing(page: Page, server: Server) -> None:
    expect(opened(page, server).locator("#keeps")).to_be_hidden()


def test_a_server_that_restarts_is_waited_for(page: Page, start: Callable[..., Server]) -> None:
    server = start()
    opened(page, server).click("#speak")
    expect(page.locator("#speak")).to_have_text("Stop")
    expect(page.locator("#service")).to_contain_text("1 of")
    server.reconfigure(UserConfig(drain=True))
    expect(page.locator("#problem")).to_contain_text("trying again in")
    server.reconfigure(UserConfig())
    expect(page.locator("#service")).to_contain_text("1 of")
    expect(page.locator("#problem")).to_be_hidden()
    page.click("#speak")
    expect(page.locator("#speak")).to_have_text("Speak")


def test_it_fits_a_telephone(browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True)
    page = opened(context.new_page(), server)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in ("#speak", "label[for=file]", "#txt"):
        box = page.locator(button).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 640
        assert box["height"] >= 36
    context.close()
