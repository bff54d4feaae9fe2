"""What each filter of a chain is worth: on the canary, and where the truth of the selected audio is known.

A filter is read as a classifier of labels: those it keeps it calls good, and good is a label with few word errors. The
result is plain data for ``filters.json``, the page of :mod:`raysr.evaluate.report` and ``raysr filter``.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from raysr.config import Spec
from raysr.corpus.utterance import Utterance
from raysr.errors import RunError
from raysr.evaluate.wer import score, total
from raysr.ipl.context import CycleContext
from raysr.ipl.decisions import Decision
from raysr.ipl.earlier import labelled
from raysr.ipl.filters.chain import FilterChain
from raysr.ipl.predictions import Prediction
from raysr.ipl.strata import duration_stratum, grouped

GOOD_WER = 10.0  # percent
EXAMPLES = 2
GROUPS = 20  # strata of a kind that are listed, those of most hours first


class Side:
    """Predictions of one kind, and what a chain makes of them.

    Args:
        predictions: of the canary, or of the selected audio.
        truth: what is really said, by id, of all of them, some or none.
        chain: the filters.
        good_wer: percent of a label's words that may be wrong for it to be good.
    """

    def __init__(
        self,
        predictions: Iterable[Prediction],
        truth: Mapping[str, str],
        chain: FilterChain,
        good_wer: float = GOOD_WER,
    ) -> None:
        everything = list(predictions)
        self.labelled = [p for p in everything if p.label is not None]
        self.decisions = chain(everything)
        self._places = {name: place for place, name in enumerate(chain.rules)}
        known = {p.id: p.label.text for p in self.labelled if p.label and p.id in truth}
        scored = score(list(known), [truth[name] for name in known], list(known.values()))
        self.words = {s.id: s.words for s in scored}
        self.references = {s.id: s.reference for s in scored}
        self.good = {n for n, w in self.words.items() if 100 * w.errors <= good_wer * w.reference}

    def offered(self, name: str) -> list[Decision]:
        """Return the decisions on what the filters before ``name`` have left."""
        return [d for d in self.decisions if self._place(d) >= self._places[name]]

    def judge_so_far(self, name: str) -> dict[str, Any]:
        """Judge the chain up to and with a filter."""
        return self.judge({d.id for d in self.decisions if self._place(d) > self._places[name]})

    def judge(self, kept: Collection[str]) -> dict[str, Any]:
        """Return precision and recall of "kept" as "good", and the label WER of what is kept."""
        chosen = self.words.keys() & kept
        hits = len(chosen & self.good)
        return {
            "labels": len(self.words),
            "good": len(self.good),
            "kept": len(chosen),
            "precision": hits / len(chosen) if chosen else None,
            "recall": hits / len(self.good) if self.good else None,
            "label_wer": total(self.words[name] for name in chosen).rate,
        }

    def examples(self, name: str) -> list[dict[str, Any]]:
        """Return a few labels that a filter dropped and kept, the mistakes it made first where the truth is known.

        None of a filter that dropped nothing.
        """
        offered = sorted(self.offered(name), key=lambda d: d.id)
        dropped = sorted((d for d in offered if d.rule == name), key=lambda d: d.id not in self.good)
        kept = sorted((d for d in offered if d.rule != name), key=lambda d: d.id in self.good)
        right = dropped[EXAMPLES:][::-1][:EXAMPLES]
        return [
            {"id": d.id, "kept": d.rule != name, "text": d.text or "", "reference": self.references.get(d.id)}
            | {"reason": d.reason if d.rule == name else None}
            for d in [*dropped[:EXAMPLES], *right, *(kept[:EXAMPLES] if dropped else ())]
        ]

    def _place(self, decision: Decision) -> int:
        """Return the place of the filter that dropped a label; one past the last if none did, -1 without a label."""
        if decision.status == "failed":
            return -1
        return len(self._places) if decision.rule is None else self._places[decision.rule]


def judge_filters(
    specs: Sequence[Spec], context: CycleContext, truth: Mapping[str, str], good_wer: float = GOOD_WER
) -> dict[str, Any]:
    """Run filters over what a cycle's teachers have said, and report on them; nothing is labelled or written.

    Raises:
        RunError: the cycle has not labelled anything yet.
    """
    predictions = list(labelled(context.folder) or ())
    if not predictions:
        raise RunError(f"{context.folder}: nothing is labelled here (yet): name a cycle that has labelled")
    chain, judged = FilterChain.build(specs, context), context.canary
    references = {j.prediction.id: j.reference for j in judged}
    selected = Side(predictions, truth, chain, good_wer)
    canary = Side((j.prediction for j in judged), references, chain, good_wer)
    report = filter_report(chain, selected, canary, context.utterances())
    return {"cycle": context.cycle, "good_wer": good_wer, **report}


def filter_report(
    chain: FilterChain, selected: Side, canary: Side, utterances: Mapping[str, Utterance]
) -> dict[str, Any]:
    """Return what the filters do: each alone, the chain up to each, and what the whole chain keeps of every stratum.

    ``utterances`` says of the selected ones, by id, what their speakers and tags are.
    """
    sides = {name: side for name, side in (("canary", canary), ("truth", selected)) if side.words}
    rows = []
    for name, rule in chain.rules.items():
        dropped = [d for d in selected.decisions if d.rule == name]
        alone = {part: side.words.keys() - rule(side.labelled).keys() for part, side in sides.items()}
        rows.append(
            {
                "filter": name,
                "offered": len(selected.offered(name)),
                "dropped": len(dropped),
                "dropped_h": sum(d.duration for d in dropped) / 3600,
                "alone": {part: side.judge(alone[part]) for part, side in sides.items()},
                "so_far": {part: side.judge_so_far(name) for part, side in sides.items()},
                "examples": next(filter(None, (s.examples(name) for s in (*sides.values(), selected))), []),
            }
        )
    return {
        "filter_hash": chain.hash,
        "unfiltered": {part: side.judge(side.words.keys()) for part, side in sides.items()},
        "filters": rows,
        "strata": _strata(selected.decisions, utterances),
    }


def _strata(
    decisions: Sequence[Decision], utterances: Mapping[str, Utterance]
) -> dict[str, list[dict[str, Any]]]:
    """Return hours offered and kept by duration, and by speaker, language and tag where there are several."""
    kinds: dict[str, list[tuple[str, Decision]]] = {"duration": []}
    for d in decisions:
        kinds["duration"].append((duration_stratum(d.duration), d))
        for kind, value in _named(utterances.get(d.id)).items():
            kinds.setdefault(kind, []).append((value, d))
    told = {kind: grouped(pairs) for kind, pairs in kinds.items()}
    return {kind: _hours(groups) for kind, groups in told.items() if len(groups) > 1 or kind == "duration"}


def _named(utterance: Utterance | None) -> dict[str, str]:
    if utterance is None:
        return {}
    named = {"speaker": utterance.speaker, "language": utterance.language}
    named |= {f"tag:{tag}": value for tag, value in utterance.tags.items()}
    return {kind: value for kind, value in named.items() if value}


def _hours(groups: Mapping[str, Sequence[Decision]]) -> list[dict[str, Any]]:
    offered = {name: sum(d.duration for d in members) / 3600 for name, members in groups.items()}
    return [
        {
            "stratum": name,
            "utterances": len(groups[name]),
            "offered_h": offered[name],
            "kept_h": sum(d.duration for d in groups[name] if d.status == "kept") / 3600,
        }
        for name in sorted(groups, key=lambda name: (-offered[name], name))[:GROUPS]
    ]
