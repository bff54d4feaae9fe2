"""The forms of corpora that can be imported, and which of them a place holds."""

import re
from itertools import islice
from pathlib import Path

from raysr.corpus import places
from raysr.corpus.importers.folder import FolderSource
from raysr.corpus.importers.huggingface import HuggingFaceSource, tables
from raysr.corpus.importers.kaldi import KaldiSource
from raysr.corpus.importers.lhotse import LhotseSource, is_lhotse
from raysr.corpus.importers.lines import json_lines
from raysr.corpus.importers.nemo import NemoSource, is_nemo
from raysr.corpus.importers.source import Source
from raysr.corpus.manifest import JSONL
from raysr.errors import CorpusError

FORMS = ("folder", "kaldi", "nemo", "lhotse", "huggingface")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_TABLES = (".parquet", ".arrow")
_LOOKED_AT = 20


def open_source(
    place: str | Path,
    form: str = "auto",
    *,
    transcripts: Path | None = None,
    split: str | None = None,
    leave_out: tuple[Path, ...] = (),
) -> Source:
    """Open a corpus of a form, or of the one that it looks like.

    Args:
        place: a folder, a file, a URI of a manifest, or a name of the Hugging Face hub.
        form: one of ``FORMS``, or ``auto``.
        transcripts: for ``folder`` alone.
        split: for ``huggingface`` alone.
        leave_out: files and folders below a folder of audio or tables that are none of it.

    Raises:
        CorpusError: nothing there of that form, or of any.
    """
    if form not in (*FORMS, "auto"):
        raise CorpusError(f"no such format '{form}': choose auto, {', '.join(FORMS[:-1])} or {FORMS[-1]}")
    form = detect(place, leave_out) if form == "auto" else form
    if transcripts is not None and form != "folder":
        raise CorpusError(
            f"{place}: is of the form {form}, which has its transcripts itself: leave --transcripts out"
        )
    if split is not None and form != "huggingface":
        raise CorpusError(f"{place}: is of the form {form}, which has no splits: leave --split out")
    if form == "kaldi":
        return KaldiSource(place)
    if form == "nemo":
        return NemoSource(place)
    if form == "lhotse":
        return LhotseSource(place)
    if form == "huggingface":
        return HuggingFaceSource(place, split, leave_out)
    return FolderSource(place, transcripts, leave_out)


def detect(place: str | Path, leave_out: tuple[Path, ...] = ()) -> str:
    """Return the form of a corpus without ``leave_out``; raise :class:`CorpusError` when it is none of them."""
    path = Path(place)
    if places.is_uri(str(place)):
        return _of_lines(str(place))
    if path.is_dir():
        if (path / "wav.scp").is_file():
            return "kaldi"
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        return "huggingface" if saved or next(tables(path, leave_out), None) else "folder"
    if path.is_file():
        return "huggingface" if path.suffix in _TABLES else _of_lines(str(path))
    if _HUB_NAME.fullmatch(str(place)):
        return "huggingface"
    return "folder"


def _of_lines(place: str) -> str:
    if place.endswith(JSONL):
        for _, record in islice(json_lines(place), _LOOKED_AT):
            if isinstance(record, dict):
                if is_lhotse(record):
                    return "lhotse"
                if is_nemo(record):
                    return "nemo"
    raise CorpusError(
        f"{place}: no corpus: give a folder of audio, a Kaldi data directory, a NeMo manifest, lhotse cuts "
        "or a Parquet file (or say which with --format)"
    )
