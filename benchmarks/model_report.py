"""From the errors of all cells to what is compared, and its tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from raysr.evaluate.bootstrap import bootstrap, pool_runs

Scored = Mapping[tuple[str, int], Mapping[str, Any]]
Errors = Sequence[Sequence[int]]
WHOLE, STREAMED = "whole", ("chunk16", "chunk16+8", "chunk8+8")


def summarise(scored: Scored) -> dict[str, Any]:
    """Return WERs of all cells and the comparisons between them; ``scored`` is by name and seed."""
    results: dict[str, Any] = {"encoders": {}}
    for name in dict.fromkeys(name for name, _ in scored):
        of_name = [found for (other, _), found in scored.items() if other == name]
        if "methods" in of_name[0]:
            results["second_pass"] = methods(of_name[0])
        elif "no_lm" in of_name[0]:
            results["biasing"] = {way: biasing([found[way] for found in of_name]) for way in of_name[0]}
        else:
            results["encoders"][name] = encoder(of_name)
    unified, full = (
        [found for (name, _), found in scored.items() if name == wanted]
        for wanted in ("unified", "full_only")
    )
    if unified:
        results["unified_streamed_vs_whole_relative"] = {
            f"{method} {context}": relative(pooled(unified, method, context), pooled(unified, method, WHOLE))
            for method in ("greedy", "beam")
            for context in STREAMED
        }
    if unified and full:
        results["unified_vs_full_only_relative"] = {
            method: relative(pooled(unified, method, WHOLE), pooled(full, method, WHOLE))
            for method in ("greedy", "beam")
        }
    return results


def encoder(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one encoder's size, latency, and WER by method, context and set: one value a seed."""
    words = {name: sum(counts) for name, counts in cells[0]["words"].items()}
    return {
        "parameters": cells[0]["parameters"],
        "latency_ms": cells[0]["latency_ms"],
        "wer": {
            method: {
                context: {
                    name: [round(sum(c["errors"][method][context][name]) / words[name], 4) for c in cells]
                    for name in words
                }
                for context in contexts
            }
            for method, contexts in cells[0]["errors"].items()
        },
    }


def pooled(cells: Iterable[Mapping[str, Any]], method: str, context: str) -> Errors:
    """Return errors (S, N) of all sets, one row a seed."""
    return [_concatenated(c["errors"][method][context]) for c in cells]


def relative(errors: Errors, other: Errors) -> dict[str, Any]:
    """Return how many more errors there are than in ``other``, both (S, N): 0.05 is 5%; with its paired interval."""
    interval = bootstrap([pool_runs(errors), pool_runs(other)], lambda a, b: a / b - 1, 10_000, 0.95, 0)
    return {
        "pooled": round(interval.estimate, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "by_seed": [round(sum(a) / sum(b) - 1, 4) for a, b in zip(errors, other, strict=True)],
    }


def methods(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return WER and chosen weights of every method, and how each compares with the prefix beam that it extends."""
    words = {name: sum(counts) for name, counts in cell["words"].items()}
    found = cell["methods"]
    errors = {name: [_concatenated(each["errors"])] for name, each in found.items()}
    return {
        "wer": {
            name: {test: round(sum(each["errors"][test]) / words[test], 4) for test in words}
            for name, each in found.items()
        },
        "weights": {name: each["weights"] for name, each in found.items()},
        "relative": {
            name: relative(errors[name], errors[base]) for name in found if (base := _base(name)) != name
        },
        "lm_vs_none_relative": relative(errors["prefix_beam_lm"], errors["prefix_beam"]),
    }


def _base(method: str) -> str:
    """Return the first pass that a method is compared with: the prefix beam, with a language model if it has one."""
    return "prefix_beam_lm" if method.endswith("_lm") else "prefix_beam"


def biasing(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return recall of the wanted names and WER of the other words by boost, pooled over seeds."""
    ways = list(cells[0]["boosts"])
    results: dict[str, Any] = {"boosts": {way: [c["boosts"][way] for c in cells] for way in ways}, "sets": {}}
    for name in [*cells[0]["sets"], "all"]:
        chosen = [found for c in cells for test, found in c["sets"].items() if name in (test, "all")]
        rates = {}
        for way in ways:
            total = {key: sum(found[way][key] for found in chosen) for key in chosen[0][way]}
            rates[way] = {
                "recall": round(total["recalled"] / total["said"], 4),
                "other_wer": round(total["errors"] / total["others"], 4),
            }
        results["sets"][name] = rates
    return results


def as_tables(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown; WER in %, mean over seeds."""
    parts = [_encoder_table(results)] if results["encoders"] else []
    for key in ("unified_streamed_vs_whole_relative", "unified_vs_full_only_relative"):
        for method, found in results.get(key, {}).items():
            parts.append(f"{key} {method}: {found['pooled']} {found['interval']}, by seed {found['by_seed']}")
    if "second_pass" in results:
        parts.append(_method_table(results["second_pass"]))
    if "biasing" in results:
        parts += [f"biasing, {way}:\n{_biasing_table(found)}" for way, found in results["biasing"].items()]
    return "\n\n".join(parts)


def _encoder_table(results: Mapping[str, Any]) -> str:
    columns = dict.fromkeys(
        (method, context)
        for each in results["encoders"].values()
        for method, contexts in each["wer"].items()
        for context in contexts
    )
    heads = ["encoder", "M parameters", "worst latency in ms by chunk", *(" ".join(c) for c in columns)]
    lines = [_row([*heads, "RTF whole", "RTF stream"]), "|---" * (len(heads) + 2) + "|"]
    for name, each in results["encoders"].items():
        latency = ", ".join(f"{c[5:]}: {ms['worst']:.0f}" for c, ms in each["latency_ms"].items()) or "–"
        wers = [_percents(each["wer"][m].get(c)) for m, c in columns]
        speed = results["speed"].get(name, {})
        cells = [name, f"{each['parameters'] / 1e6:.2f}", latency, *wers]
        lines.append(_row([*cells, speed.get("whole", "–"), speed.get("stream", "–")]))
    return "\n".join(lines)


def _method_table(found: Mapping[str, Any]) -> str:
    tests = list(next(iter(found["wer"].values())))
    lines = [_row(["method", *tests, "against the prefix beam", "weights"]), "|---" * (len(tests) + 3) + "|"]
    for name, wers in found["wer"].items():
        gain = found["relative"].get(name)
        shown = f"{100 * gain['pooled']:+.1f}% {gain['interval']}" if gain else "–"
        lines.append(_row([name, *(f"{100 * wers[t]:.1f}" for t in tests), shown, found["weights"][name]]))
    return "\n".join(lines)


def _biasing_table(found: Mapping[str, Any]) -> str:
    ways = [f"{way} ({_each(boosts)})" for way, boosts in found["boosts"].items()]
    heads = ["set", *(f"{key}, {way}" for key in ("recall", "WER of other words") for way in ways)]
    lines = [_row(heads), "|---" * len(heads) + "|"]
    for name, each in found["sets"].items():
        values = [each[way][key] for key in ("recall", "other_wer") for way in found["boosts"]]
        lines.append(_row([name, *(f"{100 * value:.1f}" for value in values)]))
    return "\n".join(lines)


def _each(values: Iterable[float]) -> str:
    return ", ".join(dict.fromkeys(f"{value:g}" for value in values))


def _percents(wers: Mapping[str, Sequence[float]] | None) -> str:
    return "–" if wers is None else " / ".join(f"{100 * np.mean(values):.1f}" for values in wers.values())


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _concatenated(by_set: Mapping[str, Sequence[int]]) -> list[int]:
    return [errors for _, counts in sorted(by_set.items()) for errors in counts]
