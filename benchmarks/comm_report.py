"""From what was seen of every exchange on every link to what is compared, and its table."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from raysr.train.network.payload import Payload, Shapes, in_blocks, low_rank, now_and_then, whole
from raysr.train.network.recommend import Accuracy

COMPUTE = "compute"
ROUND = 8  # steps of local SGD between meetings
CLASSES: Sequence[Accuracy] = get_args(Accuracy)


@dataclass(frozen=True)
class Setting:
    """A way to keep replicas one.

    Attributes:
        comm: options of the exchange.
        accuracy: what a training has to put up with.
        payload: what theory says is sent, by shapes and ranks.
        optimiser: options of that, where it is its business.
        every: of how many steps one sends.
    """

    comm: Mapping[str, Any]
    accuracy: Accuracy
    payload: Callable[[Shapes, int], Payload]
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    every: int = 1


# whatever begins late begins after the first step or two, which are not timed
SETTINGS: Mapping[str, Setting] = {
    "none": Setting({"kind": "none"}, "exact", whole),
    "fp16": Setting({"kind": "fp16"}, "rounded", partial(whole, width=2)),
    "bf16": Setting({"kind": "bf16"}, "rounded", partial(whole, width=2)),
    **{
        f"powersgd{rank}": Setting(
            {"kind": "powersgd", "rank": rank, "start": 1}, "compressed", partial(low_rank, rank=rank)
        )
        for rank in (1, 2, 4)
    },
    "onebit_adam": Setting(
        {"kind": "none"},
        "compressed",
        partial(in_blocks, codec="1bit"),
        {"kind": "onebit_adam", "freeze_step": 2},
    ),
    "8bit": Setting({"kind": "8bit", "start": 1}, "compressed", partial(in_blocks, codec="8bit")),
    "local_sgd": Setting(
        {"kind": "local_sgd", "start": 1, "every": ROUND},
        "apart",
        partial(now_and_then, every=ROUND),
        every=ROUND,
    ),
}
APART = Setting({"kind": "local_sgd", "start": 1, "every": 1_000_000}, "apart", partial(whole, width=0))
"""What computes alone: replicas meet after the last step, which is not timed."""

Cells = Mapping[tuple[str, str], Mapping[str, Any]]


def seconds_of(setting: Setting, metrics: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of a step: their median, or their mean over whole rounds where not all are alike."""
    seconds = [step["seconds_per_step"] for step in metrics]
    if setting.every == 1:
        return statistics.median(seconds)
    assert len(seconds) % setting.every == 0, "a round is timed whole or not at all"
    return statistics.fmean(seconds)


def summarise(cells: Cells, shapes: Shapes, ranks: int) -> dict[str, Any]:
    """Return all that is compared.

    Args:
        cells: by setting and link, what :class:`benchmarks.comm_cluster.Timed` holds.
        shapes: of the student's parameters.
        ranks: that trained it.
    """
    hooks = [name for name in SETTINGS if any(hook == name for hook, _ in cells)]
    links = list(dict.fromkeys(link for hook, link in cells if hook in SETTINGS))
    on = {
        link: {hook: cells[hook, link]["metrics"] for hook in hooks if (hook, link) in cells}
        for link in links
    }
    step_s = {
        link: {hook: seconds_of(SETTINGS[hook], metrics) for hook, metrics in found.items()}
        for link, found in on.items()
    }
    of_hook = {hook: [found for (name, _), found in cells.items() if name == hook] for hook in hooks}
    theory = {hook: SETTINGS[hook].payload(shapes, ranks) for hook in hooks}
    wire = {hook: _mean((c["sent"], len(c["metrics"])) for c in found) for hook, found in of_hook.items()}
    results: dict[str, Any] = {
        "step_s": step_s,
        "payload_bytes": {
            hook: _mean((step["payload_bytes"], 1) for c in found for step in c["metrics"])
            for hook, found in of_hook.items()
        },
        "theory_bytes": {hook: payload.payload for hook, payload in theory.items()},
        "wire_bytes": wire,
        "wire_theory_bytes": {hook: payload.wire for hook, payload in theory.items()},
        "wire_ratio": {hook: wire[hook] / payload.wire for hook, payload in theory.items()},
        "skipped_steps": {
            hook: max(_last(c)["skipped_steps"] for c in found) for hook, found in of_hook.items()
        },
        "comm_wait": {
            link: {hook: statistics.fmean(s["comm_wait"] for s in metrics) for hook, metrics in found.items()}
            for link, found in on.items()
        },
        **{f"speedup_{link}": speedups(found) for link, found in step_s.items() if "none" in found},
    }
    alone = [found for (name, _), found in cells.items() if name == COMPUTE]
    if alone:
        results["compute_only_s"] = seconds_of(APART, alone[0]["metrics"])
        results["background_bytes_a_step"] = alone[0]["sent"]
        results["over_compute"] = {
            link: {hook: seconds / results["compute_only_s"] for hook, seconds in found.items()}
            for link, found in step_s.items()
        }
    return results


def speedups(step_s: Mapping[str, float]) -> dict[str, float]:
    """Return how many times shorter steps are than with no exchange but the plain one."""
    return {hook: step_s["none"] / seconds for hook, seconds in step_s.items() if hook != "none"}


def judge(accuracy: Accuracy, chosen: str, step_s: Mapping[str, float]) -> dict[str, Any]:
    """Return how a choice compares with the fastest of its class of accuracy or a stricter one, on one link.

    Where the chosen setting itself was not timed nothing is compared.
    """
    if chosen not in step_s:
        return {"chosen": chosen}
    allowed = CLASSES[: CLASSES.index(accuracy) + 1]
    rivals = [hook for hook in step_s if SETTINGS[hook].accuracy in allowed]
    best = min(rivals, key=step_s.__getitem__)
    return {
        "chosen": chosen,
        "step_s": step_s[chosen],
        "best": best,
        "best_step_s": step_s[best],
        "ratio": step_s[chosen] / step_s[best],
    }


def name_of(options: Mapping[str, Any]) -> str:
    """Return the setting that an exchange's options are."""
    kind = options["kind"]
    return f"powersgd{options['rank']}" if kind == "powersgd" else str(kind)


def as_table(results: Mapping[str, Any]) -> str:
    """Return step times, bytes and choices as Markdown."""
    step_s = results["step_s"]
    header = ["exchange", "payload", "of theory", "wire / theory", *(f"s, {link}" for link in step_s)]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for hook, payload in results["payload_bytes"].items():
        cells = [f"{step_s[link][hook]:.2f}" if hook in step_s[link] else "" for link in step_s]
        share = payload / results["theory_bytes"][hook]
        row = [hook, f"{payload / 1e6:.3f} MB", f"{share:.4f}", f"{results['wire_ratio'][hook]:.3f}", *cells]
        lines.append("| " + " | ".join(row) + " |")
    if "compute_only_s" in results:
        lines.append(f"\ncomputing alone: {results['compute_only_s']:.2f} s")
    for link, found in results.get("auto", {}).items():
        lines += [
            f"auto, {link}, {accuracy}: {c['chosen']}, {c['ratio']:.3f} of {c['best']}'s {c['best_step_s']:.2f} s"
            for accuracy, c in found.items()
            if "best" in c
        ]
    for link, found in results.get("preflight", {}).items():
        lines.append(f"pre-flight, {link}: {found['mbit']:.1f} Mbit/s, {found['ratio']:.3f}")
    return "\n".join(lines)


def _last(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = cell["metrics"][-1]
    return found


def _mean(weighed: Iterable[tuple[float, int]]) -> float:
    values = list(weighed)
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)
