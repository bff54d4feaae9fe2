"""lhotse's cuts, read as the JSON that they are: lhotse itself is not needed.

Format: ``CutSet.to_file`` of lhotse 1.x (``lhotse/cut/mono.py``, ``lhotse/audio/recording.py``,
``lhotse/supervision.py``).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysr.corpus import places
from raysr.corpus.importers.lines import json_lines, label, number, string, whole
from raysr.corpus.importers.report import Problem
from raysr.corpus.importers.source import Entry, Recording, Segment, locate, transcript_of

_MONO = ("MonoCut", "Cut")
_ROUNDING_S = 0.01


class LhotseSource:
    """A file of cuts (``.jsonl`` or ``.jsonl.gz``).

    A cut without supervisions is an utterance without transcript, one whose only supervision covers it an
    utterance of the cut's id, and any other one utterance for each supervision, of the supervision's id. Speaker,
    language and text are the supervision's, its gender becomes the tag ``gender``; ``custom`` is that of both.

    Only ``MonoCut`` of recordings in files is read: mixed, padded and multi-channel cuts, other kinds of source,
    and transforms other than resampling are problems; ``CutSet.save_audios`` makes files of them.
    """

    form = "lhotse"

    def __init__(self, path: str | Path) -> None:
        self.place = places.absolute(path)
        self.ignored: Mapping[str, int] = {}
        self._folder = places.parent(self.place)

    def __iter__(self) -> Iterator[Entry | Problem]:
        for where, record in json_lines(self.place):
            if isinstance(record, Problem):
                yield record
                continue
            try:
                yield from self._entries(record, where)
            except ValueError as error:
                yield Problem("unreadable line", where, str(error))
            except (KeyError, TypeError, AttributeError) as error:
                yield Problem("unreadable line", where, f"not a cut as lhotse writes it ({error})")

    def _entries(self, cut: dict[str, Any], where: str) -> Iterator[Entry | Problem]:
        kind = cut.get("type", "no cut at all")
        if kind not in _MONO:
            reason = f"is {kind}, only MonoCut is read: make audio of it with CutSet.save_audios"
            yield Problem("unsupported audio", where, reason)
            return
        if not isinstance(cut.get("recording"), dict):
            yield Problem("unsupported audio", where, "has no recording, only features: give cuts with audio")
            return
        recording = self._recording(cut["recording"], whole(cut, "channel") or 0, where)
        if isinstance(recording, Problem):
            yield recording
            return
        supervisions = cut.get("supervisions") or [{}]
        for supervision in supervisions:
            segment = _segment(cut, supervision, where, alone=len(supervisions) == 1)
            if isinstance(segment, Problem):
                yield segment
            else:
                yield recording, segment

    def _recording(self, record: dict[str, Any], channel: int, where: str) -> Recording | Problem:
        changed = [t.get("name", "?") for t in record.get("transforms") or () if t.get("name") != "Resample"]
        if changed:
            reason = f"is changed when it is read ({', '.join(changed)}): save the audio (CutSet.save_audios)"
            return Problem("unsupported audio", where, reason)
        sources = record["sources"]
        source = next((s for s in sources if channel in s["channels"]), None)
        if source is None:
            return Problem("no such channel", where, f"recording '{record['id']}' has no channel {channel}")
        if source["type"] != "file":
            reason = f"its audio is a {source['type']}, only files are read: save it (CutSet.save_audios)"
            return Problem("unsupported audio", where, reason)
        channels = source["channels"]
        return Recording(
            locate(source["source"], self._folder),
            source["source"],
            str(record["id"]),
            channel=channels.index(channel) if len(channels) > 1 else None,
            sample_rate=None if record.get("transforms") else whole(record, "sampling_rate"),
            duration=number(record, "duration"),
        )


def _segment(
    cut: dict[str, Any], supervision: dict[str, Any], where: str, alone: bool = True
) -> Segment | Problem:
    begin, length = number(cut, "start") or 0.0, number(cut, "duration")
    if not length:
        return Problem("no audio", where, f"cut '{cut['id']}' lasts 0 s: leave it out")
    covers = not supervision or _covers(supervision, length)
    start, duration = begin, length
    if not covers:
        first, duration = float(supervision["start"]), float(supervision["duration"])
        if first < -_ROUNDING_S or not 0 < duration <= length - first + _ROUNDING_S:
            reason = f"supervision '{supervision['id']}' reaches beyond its cut of {length:.2f} s: its text does too"
            return Problem("bad segment", where, reason)
        start = max(0.0, begin + first)
    custom = {**(cut.get("custom") or {}), **(supervision.get("custom") or {})}
    tags = custom.pop("tags") if isinstance(custom.get("tags"), dict) else {}
    gender = label(supervision, "gender")
    return Segment(
        str(cut["id"] if covers and alone else supervision["id"]),
        where,
        start,
        duration,
        transcript=transcript_of(string(supervision, "text"), where),
        speaker=label(supervision, "speaker"),
        language=label(supervision, "language"),
        tags={key: str(value) for key, value in tags.items()} | ({"gender": gender} if gender else {}),
        custom=custom,
    )


def _covers(supervision: dict[str, Any], length: float) -> bool:
    first, duration = float(supervision["start"]), float(supervision["duration"])
    return abs(first) <= _ROUNDING_S and abs(duration - length) <= _ROUNDING_S


def is_lhotse(record: Mapping[str, Any]) -> bool:
    """Return whether a line looks like a cut, or another thing of lhotse's."""
    return "supervisions" in record or str(record.get("type", "")).endswith("Cut") or "sources" in record
