"""`raysr align`: when each word of a known text is said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysr.cli.common import ModelOption, PoolOption

if TYPE_CHECKING:
    import numpy as np

    from raysr.corpus.utterance import Utterance
    from raysr.pool import Recogniser


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("align")(align)


def align(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Audio files, each with a .txt beside it, or transcribed manifests."
        ),
    ],
    pool: PoolOption,
    text: str | None = typer.Option(None, help="What a single audio file says, instead of its .txt."),
    model: ModelOption = "latest",
) -> None:
    """Find the words of known texts in their audio: a JSON line an utterance, times in seconds.

    What cannot be aligned is named on the error stream and left out.

    Example: `raysr align speech.wav --text "please call anna" --pool runs/demo/pool`
    """
    from raysr.cli.common import pick_entry
    from raysr.errors import CorpusError, RaysrError
    from raysr.pool import load_entry

    if text is not None and (len(sources) > 1 or _is_manifest(sources[0])):
        raise typer.BadParameter("one text belongs to one audio file", param_hint="--text")
    recogniser = load_entry(pick_entry(pool, model))
    count, failures = 0, []
    for source in sources:
        for name, item in _items(source):
            count += 1
            try:
                words = _aligned(recogniser, item, text)
            except RaysrError as error:
                failures.append(str(error) if name in str(error) else f"{name}: {error}")
            else:
                typer.echo(json.dumps({"id": name, **words}, ensure_ascii=False))
    if count == 0:
        raise CorpusError(f"{', '.join(map(str, sources))}: there is no utterance to align")
    if len(failures) == count == 1:
        raise CorpusError(failures[0])
    for failure in failures:
        typer.echo(f"left out {failure}", err=True)
    if len(failures) == count:
        raise CorpusError(f"none of {count} utterances could be aligned")


def _is_manifest(source: Path) -> bool:
    from raysr.corpus.manifest import JSONL, PARQUET

    return source.is_dir() or source.name.endswith((*JSONL, PARQUET))


def _items(source: Path) -> "Iterator[tuple[str, Utterance | Path]]":
    """Yield the name of every utterance of a manifest, or of an audio file, and where it is."""
    from raysr.corpus.manifest import open_manifest

    if _is_manifest(source):
        yield from ((utterance.id, utterance) for utterance in open_manifest(source))
    else:
        yield str(source), source


def _aligned(recogniser: "Recogniser", item: "Utterance | Path", text: str | None) -> dict[str, Any]:
    import torch

    from raysr.audio.fbank import Fbank
    from raysr.decode.align_text import align_text

    samples, said = _heard(item, text)
    features = Fbank(recogniser.config.fbank)(torch.from_numpy(samples))  # (T, 80)
    found = align_text(recogniser.model, recogniser.tokeniser, features, said)
    words = [
        {
            "text": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in found.words
    ]
    return {"log_prob": round(found.log_prob, 4), "words": words}


def _heard(item: "Utterance | Path", text: str | None) -> "tuple[np.ndarray, str]":
    """Return the samples of an utterance or file, and what they say."""
    from raysr.audio.files import decode
    from raysr.corpus.load import load_waveform
    from raysr.errors import CorpusError

    if isinstance(item, Path):
        return decode(item), _beside(item) if text is None else text
    if item.text is None:
        raise CorpusError('no transcript: a line of the manifest looks like {…, "text": "what is said"}')
    return load_waveform(item), item.text


def _beside(audio: Path) -> str:
    from raysr.errors import CorpusError

    file = audio.with_suffix(".txt")
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CorpusError(f"{audio}: no text to align: put it into {file}, or give --text") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{file}: not UTF-8 text") from None
