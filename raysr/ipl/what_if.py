"""Other filters over what a run's teachers have said: nothing is labelled, and the run stays as it is."""

from pathlib import Path
from typing import Any

import yaml

from raysr.config import Spec, read_yaml
from raysr.errors import ConfigError, RunError
from raysr.ipl.config import RunConfig
from raysr.ipl.earlier import Earlier
from raysr.ipl.filters.report import GOOD_WER, judge_filters
from raysr.ipl.progress import Progress
from raysr.ipl.run import Run


def what_if(
    folder: Path, filters: str | None = None, cycle: int | None = None, good_wer: float = GOOD_WER
) -> dict[str, Any]:
    """Return what filters make of the labels of a run's cycle, as ``filters.json`` does.

    Args:
        folder: of the run; it may be running.
        filters: a list as in the run's YAML; None is the run's own, as of that cycle.
        cycle: whose labels; None is the last that is labelled.
        good_wer: percent of a label's words that may be wrong for it to be good.

    Raises:
        RunError: there is no run, or the cycle has not labelled anything.
        ConfigError: the filters are not a list of filters.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise RunError(f"{folder} holds no run: there is no config.yaml in it; name the folder of `run.dir`")
    config = RunConfig.parse(read_yaml(file), str(file))
    run = Run(config, folder.absolute(), Progress(quiet=True))
    labelled = Earlier(run.folder / "cycles", config.run.cycles).cycles()
    if cycle is None and not labelled:
        raise RunError(f"{folder}: no cycle has labelled anything (yet)")
    of = labelled[0] if cycle is None else cycle
    specs = config.at(of).filter if filters is None else _read(filters, config)
    return judge_filters(specs, run.context(of), run.corpora.truth or {}, good_wer)


def _read(filters: str, config: RunConfig) -> list[Spec]:
    """Check filters as those of the run's configuration are."""
    try:
        given = yaml.safe_load(filters)
    except yaml.YAMLError as error:
        raise ConfigError(f"--filter: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(given, list):
        raise ConfigError("--filter: give a list, such as '[{kind: score, keep: 0.7}]'")
    return RunConfig.parse({**config.dump(), "filter": given}, "--filter").filter
