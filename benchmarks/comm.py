"""Exchanges of gradients over a slow network: step times, bytes, what `comm: auto` makes of it, and the pre-flight.

python -m benchmarks.comm --json results/comm.json

Two hosts, network namespaces of this machine with cores of their own, are joined by a link whose rate is set; on each
is a Ray node, and across them the product's own training job on Ray Train: a Conformer of 25 million parameters, two
utterances of ten seconds a rank and step. One training a setting: while it goes on the link is made slower, and after a
step that does not count so many steps are timed on each link. Without a limit and at 1 Gbit/s, where little tells
settings apart and one training may meet a slower machine than the next, those that `auto` chooses from or is judged by
are trained twice more, in turns.
Step times are medians; local SGD's are means over whole rounds. Bytes are counted in the process (payload) and at the
hosts' interfaces (wire); the kernel hands its interfaces segments of up to 64 KiB with one header of 66 bytes, so that
of TCP/IP's overhead they see 0.1% and the acknowledgements, and a card would see 4.6%. What Ray's nodes tell each other
is in them.

compute_only_s   a step of replicas that train apart, each on its own core, at the same time
auto             the choice of `comm: {kind: auto}` by a training that starts on that link, judged by the times above
preflight        what `raysr preflight --cluster` says of the link

A finished cell is kept in `--work` under a key of code and configuration: a second call goes on with what is missing.
Needs root and iproute2.
"""

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.code import code_hash
from benchmarks.comm_cluster import RANKS, Cluster, Window, cores, steps_of
from benchmarks.comm_data import MODEL, Material, material
from benchmarks.comm_report import APART, CLASSES, COMPUTE, SETTINGS, as_table, judge, name_of, summarise
from raysr.corpus.disk import replacing
from raysr.train.network.payload import numbers

LINKS: Mapping[str, float | None] = {"unlimited": None, "1gbit": 1000.0, "100mbit": 100.0}
STEPS = {"unlimited": 24, "1gbit": 20, "100mbit": 8}
TIMED = {**SETTINGS, COMPUTE: APART}
COMPARED = [name for name, setting in SETTINGS.items() if setting.accuracy != "apart"]
CLOSE, TURNS = ("unlimited", "1gbit"), 3  # the links, and the trainings, of those that may be equally fast
AUTO = {f"auto-{accuracy}": accuracy for accuracy in CLASSES if accuracy != "apart"}
PREFLIGHT = "preflight"
CHOOSING = "raysr.train.exchange.auto"  # runs where a training is asked to choose
CODE = ("benchmarks.comm_cluster", "benchmarks.comm_data", "benchmarks.comm_fit", "raysr.preflight")


@dataclass(frozen=True)
class Cell:
    """One setting on one link; ``steps`` of it are timed."""

    name: str
    link: str
    steps: int
    turn: int = 0

    @property
    def mbit(self) -> float | None:
        return LINKS[self.link]

    def file(self, work: Path) -> Path:
        """Return where it is kept."""
        setting = TIMED.get(self.name)
        configuration = [setting.comm, setting.optimiser] if setting else []
        code = _code(() if self.name in AUTO else (CHOOSING,))
        parts = [code, self.name, self.mbit, self.steps, MODEL.dump(), configuration]
        parts += [self.turn] if self.turn else []
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return work / f"{self.name}-{self.link}-{key}.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*TIMED, *AUTO, PREFLIGHT]
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/comm"), help="finished cells")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--links", nargs="+", choices=list(LINKS), default=list(LINKS))
    parser.add_argument("--steps", type=int, help="timed on each link; more where a round has more")
    options = parser.parse_args()
    work = options.work.absolute()
    planned = plan(options.only, options.links, options.steps)
    given = material(work)
    missing = [cell for cell in planned if not cell.file(work).exists()]
    if missing:
        with Cluster(work) as cluster:
            for (name, _), of_name in groupby(missing, lambda cell: (cell.name, cell.turn)):
                started = time.monotonic()
                for cell, found in measure(cluster, given, work / "runs" / name, name, list(of_name)):
                    with replacing(cell.file(work)) as file:
                        file.write(json.dumps(found).encode())
                print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    results = evaluate({cell: json.loads(cell.file(work).read_text()) for cell in planned}, given)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(as_table(results))


def plan(names: Sequence[str], links: Sequence[str], steps: int | None) -> list[Cell]:
    """Return all cells, one name's after another; what computes alone needs one link, the pre-flight slow ones."""
    cells = []
    for name in names:
        every = TIMED[name].every if name in TIMED else 1
        for link in links:
            asked = steps or STEPS[link]
            if not (name == COMPUTE and link != links[0]) and not (name == PREFLIGHT and LINKS[link] is None):
                cells.append(Cell(name, link, -(-asked // every) * every))
    close = [cell for cell in cells if cell.link in CLOSE and cell.name in COMPARED]
    for turn in range(1, TURNS if len({cell.name for cell in close}) > 1 else 1):
        cells += [replace(cell, turn=turn) for cell in close[:: -1 if turn % 2 else 1]]
    return cells


def measure(
    cluster: Cluster, given: Material, folder: Path, name: str, cells: Sequence[Cell]
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Carry out cells of one name, and yield each with what was found."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name in TIMED:
        windows = [Window(cell.link, cell.mbit, cell.steps) for cell in cells]
        setting = TIMED[name]
        job = given.job(folder / "out", steps_of(windows), RANKS, setting.comm, setting.optimiser)
        timed = cluster.timed(job, windows, folder)
        yield from ((cell, asdict(timed[cell.link])) for cell in cells)
    elif name in AUTO:
        job = given.job(folder / "out", 1, RANKS, {"kind": "auto", "accuracy": AUTO[name]}, {})
        yield from ((cell, cluster.noted(job, cell.mbit, folder)) for cell in cells)
    else:
        yield from ((cell, cluster.examined(cell.mbit, given.megabytes, folder)) for cell in cells)
    shutil.rmtree(folder)


def evaluate(cells: Mapping[Cell, Mapping[str, Any]], given: Material) -> dict[str, Any]:
    """Return all results of finished cells."""
    shapes = given.shapes
    timed: dict[tuple[str, str], Mapping[str, Any]] = {}
    for cell, found in cells.items():
        if cell.name in TIMED:
            place = cell.name, cell.link
            timed[place] = joined(timed[place], found) if place in timed else found
    results = {
        "machine": {"cpus": os.cpu_count(), "cores_of_hosts": [cores(host) for host in range(1, RANKS + 1)]},
        "model": {"parameters": numbers(shapes), **MODEL.dump()},
        "links_mbit": dict(LINKS),
        **summarise(timed, shapes, RANKS),
        "auto": {},
        "preflight": {},
    }
    for cell, found in cells.items():
        if cell.name in AUTO:
            accuracy, chosen = AUTO[cell.name], name_of(found["comm"])
            judged = judge(accuracy, chosen, results["step_s"].get(cell.link, {}))
            results["auto"].setdefault(cell.link, {})[accuracy] = {**judged, "why": found["why"]}
        elif cell.name == PREFLIGHT:
            results["preflight"][cell.link] = {
                "mbit": 8e-6 * found["pairs"][0]["bandwidth"],
                "group_mbit": 8e-6 * found["bandwidth"],
                "ratio": 8e-6 * found["pairs"][0]["bandwidth"] / (cell.mbit or 1),
            }
    return results


def joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the steps of two trainings with one setting on one link as those of one; bytes are a step's."""
    steps = len(one["metrics"]), len(other["metrics"])
    sent = (one["sent"] * steps[0] + other["sent"] * steps[1]) / sum(steps)
    return {"metrics": [*one["metrics"], *other["metrics"]], "sent": sent}


@cache
def _code(without: tuple[str, ...]) -> str:
    return code_hash(CODE, without=without)


if __name__ == "__main__":
    main()
