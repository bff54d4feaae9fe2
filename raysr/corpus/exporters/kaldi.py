"""A Kaldi data directory: sorted tables, and WAV files that Kaldi's tools read without a pipe."""

from collections import defaultdict
from pathlib import Path

from raysr.corpus.exporters.form import Exported, extras
from raysr.corpus.exporters.names import without_blanks


class KaldiForm:
    """Keeps ids, texts, speakers, languages and genders; white space in ids and speakers becomes ``%20``.

    An utterance without speaker is its own. ``utt2lang`` and ``spk2gender`` are written where every utterance
    and speaker has one, as Kaldi's validate_data_dir.sh wants them. The tables are held in memory.
    """

    codec = "wav"
    audio_folder: str | None = "audio"
    refers = True

    def __init__(self, folder: Path, place: Path) -> None:
        self._folder = folder
        self._place = place
        self._tables: dict[str, dict[str, str]] = defaultdict(dict)
        self._genders: dict[str, set[str]] = defaultdict(set)
        self._recordings: dict[str, str] = {}

    def add(self, item: Exported) -> list[str]:
        utterance, tables = item.utterance, self._tables
        name = without_blanks(utterance.id)
        speaker = without_blanks(utterance.speaker) if utterance.speaker else name
        recording = self._recording(item, name)
        tables["utt2spk"][name] = speaker
        tables["utt2dur"][name] = f"{utterance.duration:.6f}"
        if item.file.startswith("/"):
            end = utterance.start + utterance.duration
            tables["segments"][name] = f"{recording} {utterance.start:.6f} {end:.6f}"
        if utterance.text is not None:
            tables["text"][name] = " ".join(utterance.text.split())
        if utterance.language:
            tables["utt2lang"][name] = utterance.language
        self._genders[speaker].add(utterance.tags.get("gender", ""))
        lost = [*extras(utterance, "speaker", "language", "tags"), *(["id"] if name != utterance.id else [])]
        if set(utterance.tags) - {"gender"}:
            lost.append("tags")
        return [*lost, *(["speaker"] if utterance.speaker and speaker != utterance.speaker else [])]

    def finish(self) -> list[str]:
        tables, lost = self._tables, []
        names = tables["utt2spk"]
        if tables["segments"]:
            for name in set(names) - set(tables["segments"]):
                tables["segments"][name] = f"{name} 0 {tables['reco2dur'][name]}"
        if len(tables["utt2lang"]) < len(names):
            lost += ["language"] * len(tables.pop("utt2lang", {}))
        if all(len(genders) == 1 and "" not in genders for genders in self._genders.values()):
            tables["spk2gender"] = {speaker: min(genders) for speaker, genders in self._genders.items()}
        else:
            lost += ["tags"] * sum(genders != {""} for genders in self._genders.values())
        members: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            members[names[name]].append(name)
        tables["spk2utt"] = {speaker: " ".join(utterances) for speaker, utterances in members.items()}
        for table, rows in tables.items():
            if rows:
                lines = (f"{key} {rows[key]}\n" for key in sorted(rows))
                with (self._folder / table).open("w", encoding="utf-8") as file:
                    file.writelines(lines)
        return lost

    def _recording(self, item: Exported, name: str) -> str:
        """Note the recording of an utterance, a new one or the one of its file, and return its id."""
        path = str(self._place / item.file)
        if path in self._recordings:
            return self._recordings[path]
        if item.file.startswith("/"):
            name = without_blanks(item.file.rpartition(".")[0].lstrip("/").replace("/", "-"))
            while name in self._tables["wav.scp"]:
                name += "-"
        self._recordings[path] = name
        self._tables["wav.scp"][name] = path
        self._tables["reco2dur"][name] = f"{item.seconds:.6f}"
        return name
