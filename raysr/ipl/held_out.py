"""Nothing of dev or test is ever selected, whatever the selector: their audio is recognised, not their names.

What is trained on with transcripts of its own is the user's choice: it stays as it is, and the run says what of it is
held out.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from raysr.corpus.disk import replacing
from raysr.corpus.manifest import Manifest
from raysr.corpus.recordings import HeldOut
from raysr.corpus.utterance import Utterance
from raysr.ipl.events import Events
from raysr.ipl.plugins import Selector
from raysr.ipl.progress import Progress

LIST = "held-out.jsonl"
NAMED = 3


class Protecting:
    """A selector without what another one selects of held-out audio; that is listed in ``held-out.jsonl``.

    Args:
        selector: of any kind, the user's own too.
        held_out: the audio that is not to be trained on.
        folder: of the cycle.
        progress: told how many utterances were left out.
    """

    def __init__(self, selector: Selector, held_out: HeldOut, folder: Path, progress: Progress) -> None:
        self.selector, self.held_out, self.folder, self.progress = selector, held_out, folder, progress

    def __call__(self, cycle: int, unlabelled: Manifest) -> Iterator[Utterance]:
        refused = []
        for utterance in self.selector(cycle, unlabelled):
            reason = self.held_out.holds(utterance)
            if reason is None:
                yield utterance
            else:
                refused.append(_row(utterance, reason))
        if refused:
            _write(self.folder / LIST, refused)
            self.progress.say(
                f"  {len(refused)} selected utterances are left out: their audio is that of dev or test "
                f"utterances ({self.folder / LIST})"
            )


def look_for_held_out(
    sets: Mapping[str, Iterable[Utterance]],
    held_out: HeldOut,
    folder: Path,
    progress: Progress,
    events: Events,
) -> None:
    """List in ``held-out.jsonl`` what is transcribed, trained on and held out all the same; once a run.

    Args:
        sets: key of the configuration → what it names.
        held_out: the audio of dev and tests.
        folder: of the run.
        progress: told how many there are, and the first of them.
        events: likewise.
    """
    if (folder / LIST).exists():
        return
    found = [
        {**_row(utterance, reason), "set": name}
        for name, utterances in sets.items()
        for utterance in utterances
        if utterance.text and (reason := held_out.holds(utterance))
    ]
    _write(folder / LIST, found)
    if found:
        examples = [f"'{row['id']}' ({row['set']}; {row['reason']})" for row in found[:NAMED]]
        events.add("held-out audio is trained on", utterances=len(found), examples=examples)
        progress.say(
            f"WARNING: {len(found)} labelled utterances are trained on though their audio is that of dev or test "
            f"utterances, whose WER then says little: {', '.join(examples)}"
            f"{', …' if len(found) > NAMED else ''} (all: {folder / LIST})"
        )


def _row(utterance: Utterance, reason: str) -> dict[str, str]:
    return {"id": utterance.id, "audio": utterance.audio, "reason": reason}


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with replacing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def count_held_out(folder: Path) -> int:
    """Return how many utterances the list of a cycle, or of the run, has."""
    path = folder / LIST
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0
