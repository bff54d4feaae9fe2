"""Nothing of dev or test is ever trained on, whatever the selector: their audio is recognised, not their names."""

import json
from collections.abc import Iterator
from pathlib import Path

from raysr.corpus.disk import replacing
from raysr.corpus.manifest import Manifest
from raysr.corpus.recordings import HeldOut
from raysr.corpus.utterance import Utterance
from raysr.ipl.plugins import Selector
from raysr.ipl.progress import Progress

LIST = "held-out.jsonl"


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
                refused.append({"id": utterance.id, "audio": utterance.audio, "reason": reason})
        if refused:
            with replacing(self.folder / LIST) as file:
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in refused)
            self.progress.say(
                f"  {len(refused)} selected utterances are left out: their audio is that of dev or test "
                f"utterances ({self.folder / LIST})"
            )


def count_held_out(folder: Path) -> int:
    """Return how many utterances a cycle left out because their audio is held out."""
    path = folder / LIST
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0
