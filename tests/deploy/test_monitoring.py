"""Alerts and dashboards ask for what raysr and Ray tell, by its right name; each alert fires on its fault."""

import ast
import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from itertools import combinations
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
import ray
import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE
from ray._private.telemetry.metric_cardinality import WORKER_ID_TAG_KEY
from ray.dashboard.consts import NODE_TAG_KEYS

from raysr.ipl.decisions import Decision, write_decisions
from raysr.ipl.labelling.metrics import LabellingMetrics
from raysr.ipl.labels import measure_labels
from raysr.ipl.run import Run
from raysr.ipl.scoring import label_report
from raysr.ipl.tracking.follower import numbers
from raysr.ipl.tracking.trackers import RayGauges
from raysr.serving.ray_metrics import RayMetrics
from raysr.train.metrics import StepMetrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
TESTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts_test.yml").read_text(encoding="utf-8"))
CONFIG: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
BOARDS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(MONITORING.glob("grafana/*.json"))
}
RAY = Path(ray.__file__).parent / "dashboard" / "modules"
RAY_REPORTER = (RAY / "reporter" / "reporter_agent.py").read_text(encoding="utf-8")
RAY_PANELS = (RAY / "metrics" / "dashboards" / "default_dashboard_panels.py").read_text(encoding="utf-8")
COLUMNS = 24
NEWEST_CLASSIC_SCHEMA = 42

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EVERYWHERE = frozenset({"job", "instance", WORKER_ID_TAG_KEY})
OWN = {"up": EVERYWHERE}
WORDS = {"and", "or", "unless", "offset", "bool"}
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
NAME = re.compile(r"(?<![\w:.])[A-Za-z_:][\w:]*(?![\w:]*\s*\()")
VALUES = {
    "reason": ["raysr/serving/live_socket.py", "raysr/serving/openai.py", "raysr/serving/openai_errors.py"],
    "step": ["raysr/ipl/steps.py"],
    "kind": ["raysr/ipl/labelling/labeller.py", "raysr/ipl/labelling/attempts.py"],
}
"""Where the values of a label are written down."""


class Expression(NamedTuple):
    """A query, and where it stands."""

    place: str
    text: str


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Expression]:
    """Yield every query of the rules and of the dashboards."""
    for rule in ALL_RULES:
        yield Expression(rule.get("alert") or rule["record"], rule["expr"])
    for name, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield Expression(f"{name}: {panel['title']} {target['refId']}", target["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
                assert asked, variable
                yield Expression(f"{name}: ${variable['name']}", f"count by ({asked[2]}) ({asked[1]})")


EXPRESSIONS = list(expressions())


def place(expression: Expression) -> str:
    return expression.place


class Made:
    """Stands in for a metric of Ray's, which would want a cluster."""

    def set_default_tags(self, tags: Mapping[str, str]) -> None: ...

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None: ...


def of_a_report(folder: Path) -> dict[str, float]:
    """Return numbers under all names that a cycle's report may have."""
    rows = [
        Decision(status, status, None if status == "failed" else "one", None, None, 1.0, "")
        for status in ("kept", "filtered", "failed")
    ]
    write_decisions(folder / "decisions.parquet", rows)
    counted = label_report(folder / "decisions.parquet", {"kept": "one", "filtered": "one"})
    further = {"held_out", "held_out_labelled", "dev_wer", "wer"}
    assert further <= keys_of_a_report()
    named = dict.fromkeys([*measure_labels([]), *counted, *further], 0.5)
    return numbers(named | {"wer": {"greedy": {"clean": 0.5}}})


def keys_of_a_report() -> set[str]:
    tree = ast.parse(dedent(inspect.getsource(Run.score)))
    (said,) = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and isinstance(n.value, ast.Dict)]
    return {key.value for key in said.keys if isinstance(key, ast.Constant)}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, frozenset[str]]:
    """The labels of every metric: raysr's, made by its own code, Ray's, and what rules record."""
    folder = tmp_path_factory.mktemp("run")
    found: dict[str, frozenset[str]] = dict(OWN) | of_ray()
    found |= {rule["record"]: kept(rule["expr"]) for rule in ALL_RULES if "record" in rule}

    def making(kind: str) -> Callable[..., Made]:
        def make(name: str, description: str, *further: Any, tag_keys: tuple[str, ...] | None = None) -> Made:
            tags = frozenset(further[-1] if tag_keys is None else tag_keys) | EVERYWHERE
            for suffix in SUFFIXES[kind]:
                found[f"ray_{name}{suffix}"] = tags | ({"le"} if suffix == "_bucket" else set())
            return Made()

        return make

    with pytest.MonkeyPatch.context() as patch:
        for kind in SUFFIXES:
            patch.setattr(f"ray.util.metrics.{kind.capitalize()}", making(kind))
        RayMetrics()
        LabellingMetrics("run", 0, 0)
        gauges = RayGauges(folder, {})
        gauges.training(0, 1, {field.name: 0.5 for field in fields(StepMetrics) if field.name != "step"})
        gauges.cycle(0, of_a_report(folder))
        gauges.step(0, "student", 0.5)
    return found


def of_ray() -> dict[str, frozenset[str]]:
    """Return the metrics of Ray's own, as its source and its own dashboards have them."""
    told = dict.fromkeys(re.findall(r'Gauge\(\s*"(node_\w+)"', RAY_REPORTER), EVERYWHERE | {*NODE_TAG_KEYS})
    found = {f"ray_{name}": labels for name, labels in told.items()}
    for line in RAY_PANELS.splitlines():
        for name in re.findall(r"\b(ray_\w+)\{\{", line):
            grouped = [
                label for labels in re.findall(r"by \(([\w, ]+)\)", line) for label in labels.split(", ")
            ]
            asked = re.findall(r'(\w+)=~?"', line)
            found[name] = found.get(name, EVERYWHERE) | {*grouped, *asked}
    return found


@cache
def values(label: str) -> set[str]:
    """Return the strings in the source that says which values a label has."""
    if label == "Location":
        return set(re.findall(r"[A-Z_]+", RAY_PANELS))
    trees = [ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in VALUES[label]]
    constants = [n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


def names(expression: str) -> list[str]:
    """Return the metrics that a query asks for."""
    bare = re.sub(r'"[^"]*"', "", SELECTOR.sub(r"\1", GROUPING.sub("", expression)))
    return [name for name in NAME.findall(re.sub(r"\[[^\]]*\]", "", bare)) if name not in WORDS]


def complaints(expression: str, known: Mapping[str, frozenset[str]]) -> list[str]:
    """Return what of a query nobody tells: metrics, labels, values of labels."""
    asked = names(expression)
    found = [f"no metric {name}" for name in asked if name not in known]
    labels = EVERYWHERE.union(*(known.get(name, ()) for name in asked))
    for grouped in GROUPING.findall(expression):
        found += [f"no label {label}" for label in re.findall(r"\w+", grouped) if label not in labels]
    for name, matchers in SELECTOR.findall(expression):
        for label, value in MATCHER.findall(matchers):
            if label not in known.get(name, labels):
                found.append(f"{name} has no label {label}")
            found += [f"{label} is never {v}" for v in value.split("|") if not may_be(label, v)]
    return found


def may_be(label: str, value: str) -> bool:
    if label == "job":
        return value in {job["job_name"] for job in CONFIG["scrape_configs"]}
    return value.startswith("$") or label not in {*VALUES, "Location"} or value in values(label)


@pytest.fixture(scope="session")
def promtool() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run promtool, which checks rules, configurations and the tests of alerts."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)

    return run


Promtool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=place)
def test_what_is_asked_for_is_told(expression: Expression, known: dict[str, frozenset[str]]) -> None:
    assert names(expression.text)
    assert not complaints(expression.text, known)


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=place)
def test_a_misspelt_metric_is_found(expression: Expression, known: dict[str, frozenset[str]]) -> None:
    for name in set(names(expression.text)):
        misspelt = re.sub(rf"\b{name}\b", f"{name}x", expression.text)
        assert f"no metric {name}x" in complaints(misspelt, known)


def test_misspelt_labels_and_values_are_found(known: dict[str, frozenset[str]]) -> None:
    assert complaints('ray_raysr_refused_total{reasn="full"}', known) == [
        "ray_raysr_refused_total has no label reasn"
    ]
    assert complaints('ray_raysr_refused_total{reason=~"full|fool"}', known) == ["reason is never fool"]
    assert complaints('ray_raysr_step_running{step!~"predictions|train"}', known) == ["step is never train"]
    assert complaints("sum by (runs) (ray_raysr_training_loss)", known) == ["no label runs"]
    assert complaints('ray_object_store_memory{Location="MMAP"}', known) == ["Location is never MMAP"]
    assert complaints("rate(ray_raysr_refused[5m])", known) == ["no metric ray_raysr_refused"]
    assert complaints("rate(ray_raysr_encoder_step_seconds_bucket[5m])", known) == []


def test_prometheus_finds_the_nodes_where_ray_lists_them() -> None:
    (job,) = CONFIG["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


def test_configuration_and_rules_are_valid(promtool: Promtool) -> None:
    for part, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        done = promtool("check", part, MONITORING / file)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(ALL_RULES)} rules found" in done.stdout


def test_alerts_fire_on_their_faults_and_on_nothing_else(promtool: Promtool) -> None:
    done = promtool("test", "rules", MONITORING / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_never_fires_fails_its_test(promtool: Promtool, tmp_path: Path) -> None:
    mute = json.loads(json.dumps(RULES))
    for rule in (rule for group in mute["groups"] for rule in group["rules"] if "alert" in rule):
        rule["expr"] = "vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(mute), encoding="utf-8")
    shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
    done = promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert done.returncode != 0
    # what fires in no test is only ever what was expected
    assert set(re.findall(r'alertname="(\w+)"', done.stdout + done.stderr)) == set(ALERTS)


def expected() -> Iterator[dict[str, str]]:
    """Yield the labels of every alert that fires in the tests."""
    for test in TESTS["tests"]:
        for asked in test["promql_expr_test"]:
            for sample in asked["exp_samples"]:
                yield dict(MATCHER.findall(sample["labels"]))


def test_every_alert_fires_in_a_test_of_its_own() -> None:
    assert {labels["alertname"] for labels in expected()} == set(ALERTS)
    assert {labels["alertstate"] for labels in expected()} == {"firing"}


def test_all_that_alerts_ask_for_is_silent_where_all_is_well() -> None:
    silent = [t for t in TESTS["tests"] if not any(asked["exp_samples"] for asked in t["promql_expr_test"])]
    told = {name for test in silent for series in test["input_series"] for name in names(series["series"])}
    asked = {name for rule in ALL_RULES for name in names(rule["expr"])}
    assert {name for name in asked if not name.startswith("raysr:")} <= told


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors((ROOT / page).read_text(encoding="utf-8"))
    told = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    for labels in expected():
        if labels["alertname"] == name:
            assert told <= set(labels)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_queries_parse(promtool: Promtool, tmp_path: Path) -> None:
    rules = [
        {"record": f"parsed:{number}", "expr": re.sub(r"\$\w+", ".*", expression.text)}
        for number, expression in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "parsed.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_dashboard_for_each_part() -> None:
    assert set(BOARDS) == {"labelling.json", "training.json", "serving.json", "cycles.json"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert board["schemaVersion"] == NEWEST_CLASSIC_SCHEMA
    assert variables["datasource"]["type"] == "datasource"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert target["expr"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= set(variables)
            assert shown(target["legendFormat"]) <= kept(target["expr"])


def shown(legend: str) -> set[str]:
    return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))


def kept(expression: str) -> frozenset[str]:
    """Return the labels that aggregations of a query keep."""
    found = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return frozenset(label for grouped in found for label in re.findall(r"\w+", grouped))


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_side_by_side(name: str) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in BOARDS[name]["panels"]]
    for title, at in places:
        assert at["x"] >= 0
        assert at["y"] >= 0
        assert at["w"] > 0
        assert at["h"] > 0
        assert at["x"] + at["w"] <= COLUMNS, title
    for (first, a), (second, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{first} and {second} overlap"
