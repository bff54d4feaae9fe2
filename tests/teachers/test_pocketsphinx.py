"""PocketSphinx with a user's language model, dictionary and names, on speech of the demo corpus."""

import logging
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysr.config import Spec
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.decode.ngram import Ngram
from raysr.errors import ConfigError
from raysr.evaluate.wer import score, total
from raysr.teachers.base import TEACHERS, TeacherContext
from raysr.teachers.pronunciations import Pronunciations, words_of_lm
from raysr.text.normalise import normalise

pocketsphinx = pytest.importorskip("pocketsphinx")

IDS = ["test-005", "test-020", "test-023", "test-028"]
LM = "\\data\\\nngram 1=4\n\n\\1-grams:\n-99\t<s>\n-1\t</s>\n-0.5\thello\n-0.5\tqwerty\n\n\\end\\\n"


@dataclass(frozen=True)
class Domain:
    """What a user has of a domain: its language model and dictionary, without the names in the audio."""

    lm: str
    dictionary: str
    names: str
    waveforms: list[np.ndarray]
    references: list[str]


def build(**options: Any) -> Any:
    return TEACHERS.build(Spec(kind="pocketsphinx", **options), TeacherContext())


def wheel(name: str) -> Path:
    return Path(pocketsphinx.get_model_path(f"en-us/{name}"))


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    folder, corpus = tmp_path_factory.mktemp("domain"), demo_corpus()
    texts = [normalise(u.text or "").split() for u in corpus.labelled]
    words = sorted({word for text in texts for word in text})
    ids = {word: 3 + n for n, word in enumerate(words)}
    Ngram.train([[ids[w] for w in text] for text in texts], 3, 3 + len(words)).save(folder / "ids.arpa")
    head, grams = (folder / "ids.arpa").read_text().split("\\1-grams:")
    spelt = re.sub(
        r"(?<=[\t ])\d+(?=[\t \n])", lambda m: words[int(m[0]) - 3] if m[0] != "0" else m[0], grams
    )
    said: dict[str, list[str]] = {}
    for line in wheel("cmudict-en-us.dict").read_text().splitlines():
        said.setdefault(line.split()[0].partition("(")[0], []).append(line)

    def dictionary(name: str, chosen: set[str]) -> str:
        return write(folder / name, "".join(f"{line}\n" for w in sorted(chosen) for line in said.get(w, [])))

    utterances = {u.id: u for u in corpus.tests["clean"]}
    return Domain(
        lm=write(folder / "words.arpa", f"{head}\\1-grams:{spelt}"),
        dictionary=dictionary("domain.dict", set(words)),
        names=dictionary("names.dict", set(corpus.open_names)),
        waveforms=[load_waveform(utterances[name]) for name in IDS],
        references=[normalise(utterances[name].text or "") for name in IDS],
    )


def errors(domain: Domain, outputs: list[Any]) -> int:
    rows = score(IDS, domain.references, [output.text for output in outputs])
    return total(row.words for row in rows).errors


def test_names_that_the_language_model_lacks_are_heard_once_they_have_a_pronunciation(domain: Domain) -> None:
    parts = {"lm": domain.lm, "dictionary": domain.dictionary}
    without = build(**parts).transcribe(domain.waveforms)
    named = build(**parts, words=domain.names).transcribe(domain.waveforms)
    names = demo_corpus().open_names
    heard = [names & set(output.text.split()) for output in named]
    assert [names & set(text.split()) for text in domain.references] == heard
    assert not any(names & set(output.text.split()) for output in without)
    assert errors(domain, named) < errors(domain, without)
    for output in named:
        assert len(output.confidences) == len(output.text.split())
        assert output.normalised_score == pytest.approx(np.log(np.mean(output.confidences)))


def test_threads_take_turns_and_hear_the_same(domain: Domain) -> None:
    teacher = build(lm=domain.lm, dictionary=domain.dictionary, words=domain.names)
    pieces = [wave[:24000] for wave in domain.waveforms]
    alone = [teacher.transcribe([piece])[0] for piece in pieces]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda n: teacher.transcribe([pieces[n % 4]])[0], range(8)))
    assert together == [*alone, *alone]


def test_the_search_is_as_configured(domain: Domain) -> None:
    parts = {"lm": domain.lm, "dictionary": domain.dictionary}
    [usual] = build(**parts).transcribe(domain.waveforms[:1])
    [terse] = build(**parts, word_insertion_penalty=1e-20).transcribe(domain.waveforms[:1])
    [blind] = build(**parts, beam=0.5).transcribe(domain.waveforms[:1])
    [deaf] = build(**parts, language_weight=60.0).transcribe(domain.waveforms[:1])
    assert len(terse.text.split()) < len(usual.text.split())
    assert len({blind.text, deaf.text, usual.text}) == 3
    [listed] = build(**parts, nbest=3).transcribe(domain.waveforms[:1])
    assert 1 <= len(listed.nbest) <= 3


def test_its_version_names_the_files_that_it_is_of(domain: Domain, tmp_path: Path) -> None:
    first, again = (build(lm=domain.lm, dictionary=domain.dictionary).version for _ in range(2))
    other = write(tmp_path / "other.dict", Path(domain.dictionary).read_text() + "raysr R EY Z ER\n")
    assert first == again
    assert first.startswith("5.1")
    assert build(lm=domain.lm, dictionary=other).version != first


def test_its_version_names_its_acoustic_model(tmp_path: Path) -> None:
    model, same = (shutil.copytree(wheel("en-us"), tmp_path / name) for name in ("one", "two"))
    first = build(hmm=str(model)).version
    assert first == build(hmm=str(same)).version != build().version
    with (same / "feat.params").open("a") as file:
        file.write("\n")
    assert build(hmm=str(same)).version != first


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("dictionary", None, r"cannot read .*file: No such file"),
        (
            "dictionary",
            "hello HH AH L OW\nbroken QQ ZZ\n",
            r"file line 2: the acoustic model has no phone 'QQ' \('broken'\)",
        ),
        ("dictionary", ";;; a comment\n\nhello\n", r"file line 3: 'hello' has no phones"),
        ("dictionary", "# nothing but this\n", r"file: no pronunciations in it"),
        ("dictionary", b"hello HH AH L OW\ncaf\xe9 K AE F EY\n", r"file line 2: not UTF-8"),
        ("words", "zoe Z OW IY\nzoe\n", r"file line 2: 'zoe' has no phones"),
        ("lm", None, r"cannot read .*file: No such file"),
        ("lm", "", r"file line 1: not a language model in ARPA format"),
        ("lm", LM.replace("-0.5\tqwerty\n", ""), r"file line 9: not a language model in ARPA format"),
        ("lm", LM.replace("-0.5\thello", "much\thello"), r"file line 7: not a language model in ARPA format"),
        ("lm", b"\0" * 500, r"file: PocketSphinx cannot read this language model"),
        ("hmm", None, r"the acoustic model .*file cannot be loaded"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(
    option: str, content: str | bytes | None, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    if content is not None:
        write(path, content)
    with pytest.raises(ConfigError, match=told) as caught:
        build(**{option: str(path)})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_truncated_model_is_told_by_its_line(domain: Domain, tmp_path: Path) -> None:
    lines = Path(domain.lm).read_text().splitlines(keepends=True)
    cut = write(tmp_path / "cut.arpa", "".join(lines[:-400]))
    with pytest.raises(ConfigError, match=r"cut\.arpa line \d+: not a language model"):
        build(lm=cut, dictionary=domain.dictionary)


def test_words_of_the_model_that_cannot_be_heard_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lm = write(tmp_path / "lm.arpa", LM)
    with caplog.at_level(logging.WARNING):
        build(lm=lm)
    assert "1 of 2 words have no pronunciation and cannot be recognised: qwerty" in caplog.text
    caplog.clear()
    build(lm=lm, words=write(tmp_path / "words", "QWERTY K W ER1 T IY0\n"))
    assert not caplog.text
    with pytest.raises(
        ConfigError, match=r"2 of 2 words have no pronunciation.*give a dictionary of this language"
    ):
        build(lm=lm, dictionary=write(tmp_path / "dict", "zoe Z OW IY\n"))


def test_the_words_of_the_wheels_binary_model_are_read() -> None:
    words = words_of_lm(wheel("en-us.lm.bin"))
    assert words is not None
    assert len(words) > 70_000
    assert {"the", "monday", "zurich"} <= set(words)
    assert words == sorted(words)  # as the program that made it left them


@pytest.fixture
def known() -> Callable[[str], str | None]:
    return lambda phone: phone if phone in {"A", "B"} else None


def test_pronunciations_are_merged_and_numbered(known: Callable[[str], str | None], tmp_path: Path) -> None:
    read = Pronunciations()
    read.read(Path(write(tmp_path / "one", "ab A B\nab(2) B A\nba B A # said so\n")), known)
    added = read.read(Path(write(tmp_path / "two", "##\nAB(1) A A\nab A B\nzoë B\n")), known)
    assert added == ["ab", "zoë"]
    assert "".join(read.lines()) == "ab A B\nab(2) B A\nab(3) A A\nba B A\nzoë B\n"
    assert "AB" in read
    assert len(read) == 3


def test_a_word_in_brackets_is_a_word(known: Callable[[str], str | None], tmp_path: Path) -> None:
    read = Pronunciations()
    lines = "(laugh) A\n(laugh)(2) B\n(2) A B\n"
    assert read.read(Path(write(tmp_path / "one", lines)), known) == ["(laugh)", "(2)"]
    assert "".join(read.lines()) == lines
