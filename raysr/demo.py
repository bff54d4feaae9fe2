"""The demo: an unattended run over the built-in corpus, its table, and the endpoint on a held-out file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from raysr.audio.files import write_wav
from raysr.corpus.demo import demo_corpus
from raysr.corpus.load import load_waveform
from raysr.corpus.manifest import open_manifest, write_jsonl
from raysr.corpus.utterance import Utterance
from raysr.evaluate.report import METHOD_NAMES, wer_columns, write_report
from raysr.ipl.config import read_config
from raysr.ipl.cycle import run_cycles
from raysr.ipl.progress import Progress
from raysr.ipl.run import Run, open_run
from raysr.ports import free_port
from raysr.serving import run as serving
from raysr.serving.client import transcribe_http, transcribe_ws
from raysr.serving.settings import ServingConfig

RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"
SPOKEN_SECONDS = 4.0
SHORT_COUNTS = {"labelled": 24, "unlabelled": 24, "dev": 8, "tests": 8}
SHORT_RUN = [
    "run.cycles=2",
    "trainer.steps=6",
    "trainer.steps_by_cycle=[]",
    "trainer.log_every=1",
    "trainer.tuning={lm_weights: [0.5], length_bonuses: [0.0]}",
    "lm.order=2",
]
TINY_MODEL = [
    "model.encoder={dim: 32, layers: 1, heads: 2, feed_forward: 32}",
    "model.decoder={layers: 1, heads: 2, feed_forward: 32}",
]


def run_demo(folder: Path, short: bool = False, port: int = 8000, overrides: Sequence[str] = ()) -> None:
    """Label, train and serve; a second start goes on where the first one stopped.

    Args:
        folder: of the run.
        short: a few utterances and updates: it shows that everything works, and nothing of how well.
        port: of the endpoint; where it is taken, any free one.
        overrides: of the recipe, ``dotted.key=value``.

    Raises:
        RaysrError: a step failed, in one line.
    """
    dashboard = ["cluster.dashboard=true", f"cluster.dashboard_port={free_port(8265)}"]
    chosen = [
        f"run.dir={folder}",
        *dashboard,
        *([*_short_run(folder), *TINY_MODEL] if short else []),
        *overrides,
    ]
    config = read_config(RECIPE, chosen)
    progress = Progress()
    with open_run(config, progress, [RECIPE.parent]) as run:
        run_cycles(run)
        report = write_report(run.folder)
        cycles = json.loads((run.folder / "report.json").read_text(encoding="utf-8"))["cycles"]
        progress.say(
            "\nunlabelled hours, and WER in %: of their labels, and of each student on held-out voices"
        )
        progress.console.print(cycle_table(cycles))
        _serve_once(run, port)
    progress.say(f"\nreport:  {report}")
    progress.say(f"serve it again:  raysr serve --pool {_near(run.folder / 'pool')}")


def cycle_table(cycles: Sequence[dict[str, Any]]) -> Table:
    """Return a table with a row a cycle: unlabelled hours by what became of them, WER of labels and student."""
    columns = wer_columns(cycles)
    titles = [f"{METHOD_NAMES.get(method, method)}\n{name}" for method, name in columns]
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("cycle", "offered", "kept", "filtered", "failed", "label", *titles):
        table.add_column(column, justify="right", overflow="fold", vertical="bottom")
    for number, cycle in enumerate(cycles):
        hours = [f"{cycle[part]:.2f}" for part in ("offered_h", "kept_h", "filtered_h", "failed_h")]
        wers = [cycle["label_wer"], *(cycle["wer"].get(method, {}).get(name) for method, name in columns)]
        labels = hours if cycle["offered_h"] else ["–"] * len(hours)
        table.add_row(str(number), *labels, *("–" if wer is None else f"{100 * wer:.1f}" for wer in wers))
    return table


def _serve_once(run: Run, port: int) -> None:
    """Start the endpoint, send a held-out file through both of its protocols, and take it down."""
    console, utterance = run.progress.console, held_out_utterance()
    file = run.folder / "held-out.wav"
    write_wav(file, load_waveform(utterance))
    console.print("\nstarting the endpoint")
    with _endpoint(run, port) as url:
        console.print(
            f"  {url} answers; sending {file.name}, {utterance.duration:.1f} s of a voice never trained on"
        )
        over_http = transcribe_http(url, file)
        live = transcribe_ws(url, file, on_event=lambda message: _show_partial(console, message))
        console.print(f"  reference         {utterance.text}", markup=False)
        console.print(f"  over HTTP         {over_http.text}", markup=False)
        console.print(f"  as a live stream  {live.text}  (model {live.model})", markup=False)


@contextmanager
def _endpoint(run: Run, port: int) -> Iterator[str]:
    url = serving.start(ServingConfig(pool=str(run.pool.root)), port=free_port(port))
    try:
        yield url
    finally:
        serving.stop(run.connection)


def held_out_utterance() -> Utterance:
    """Return the first clean test utterance that is long enough to watch."""
    tests = demo_corpus().tests["clean"]
    return next((u for u in tests if u.duration >= SPOKEN_SECONDS), next(iter(tests)))


def _show_partial(console: Console, message: dict[str, Any]) -> None:
    """Show the captions as they grow, on a terminal."""
    if console.is_terminal and message["type"] == "Results" and not message["is_final"]:
        text = message["channel"]["alternatives"][0]["transcript"]
        console.print(f"  … {text}", style="dim", markup=False, overflow="ellipsis", no_wrap=True)


def _short_run(folder: Path) -> list[str]:
    """Write a few utterances of every part beside the run, and return the overrides that use them."""
    demo = demo_corpus()
    parts = {"labelled": demo.labelled, "unlabelled": demo.unlabelled, "dev": demo.dev["clean"]}
    data = folder.absolute().with_name(f"{folder.name}-data")
    data.mkdir(parents=True, exist_ok=True)
    named = []
    for name, manifest in parts.items():
        write_jsonl(data / f"{name}.jsonl", manifest.sample(SHORT_COUNTS[name]))
        named.append(f"data.{name}={data / f'{name}.jsonl'}")
    for name, manifest in demo.tests.items():
        write_jsonl(data / f"test-{name}.jsonl", open_manifest(list(manifest)[: SHORT_COUNTS["tests"]]))
        named.append(f"data.tests.{name}={data / f'test-{name}.jsonl'}")
    return [*named, *SHORT_RUN]


def _near(path: Path) -> Path:
    """Return the path from here where it lies below this folder, as a person would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
