"""The report in a real browser, Debian's Chromium, from disk and without a network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from raysr.evaluate.listening import Listening, listening
from raysr.evaluate.report import write_report

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two cycles whose utterances can be heard."""
    run = tmp_path_factory.mktemp("reports") / "a-run"
    run.mkdir()
    (run / "config.yaml").write_text("run: {cycles: 2}\n")
    for cycle in range(2):
        folder = run / "cycles" / f"{cycle:03d}"
        (folder / "train").mkdir(parents=True)
        rows = [
            {"id": f"u{n}", "set": "clean", "method": "lm", "errors": n % 3 + 1 - cycle, "words": 4}
            | {"reference": "please call anna <now>", "hypothesis": "please tall hannah"}
            for n in range(8)
        ]
        (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "report.json").write_text(json.dumps({"cycle": cycle, "wer": {"lm": {"clean": 0.5}}}))
        steps = ({"step": step, "loss": 10 / step} for step in range(1, 9))
        (folder / "train" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))

    def listen(name: str, identifier: str) -> Listening:
        time = np.arange(32000) / 16000
        return listening((0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))

    return write_report(run, listen=listen, played=3)


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, in either colours; whatever its console says fails the test."""
    context = browser.new_context(offline=True, color_scheme=request.param)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda asked: said.append(asked.url))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert said == []


def test_it_is_there_without_a_network_and_its_audio_plays(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("a-run")
    player = page.locator("audio").first
    player.evaluate("player => { player.muted = true; return player.play() }")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.2", timeout=PATIENCE_MS)
    assert player.evaluate("player => player.duration") == pytest.approx(2.0, abs=0.05)
    pictures = page.locator(".utterance img")
    assert pictures.count() >= 3
    assert pictures.first.evaluate("picture => picture.naturalWidth") > 100


def test_text_can_be_told_from_its_background(page: Page) -> None:
    luminances = """element => {
        const linear = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
        const luminance = text => {
            const [red, green, blue] = text.match(/[\\d.]+/g).map(part => linear(Number(part) / 255))
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue
        }
        let behind = element
        while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement
        return [luminance(getComputedStyle(element).color), luminance(getComputedStyle(behind).backgroundColor)]
    }"""
    for what in ("h1", "td", "ins", "del", ".soft", "pre"):
        darker, lighter = sorted(page.locator(what).first.evaluate(luminances))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{what}: the contrast that WCAG 2 asks for"


def test_nothing_is_wider_than_a_phone(browser: Browser, report: Path) -> None:
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_it_can_be_printed(browser: Browser, report: Path) -> None:
    context = browser.new_context(offline=True, color_scheme="dark")
    page = context.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert (
        page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert not page.locator("audio").first.is_visible()
    assert page.pdf()[:5] == b"%PDF-"
    context.close()
