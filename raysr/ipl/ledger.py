"""A run's reports, cycle by cycle, in ``report.json``; and by them whether the run is over."""

from pathlib import Path
from typing import Any

from raysr.ipl.events import Events
from raysr.ipl.handover import write_json
from raysr.ipl.stop import RunCollapsedError, Stop, StopConfig, collapsed, flat
from raysr.pool import Pool


class Ledger:
    """The reports of the cycles that are done."""

    def __init__(self, folder: Path, pool: Pool, config: StopConfig, events: Events) -> None:
        self.reports: list[dict[str, Any]] = []
        self.stop: Stop | None = None
        self._folder, self._pool, self._config, self._events = folder, pool, config, events

    def add(self, report: dict[str, Any]) -> None:
        """Take in a cycle's report.

        Raises:
            RunCollapsedError: it shows that the run has collapsed.
        """
        before = list(self.reports)
        self.reports.append(report)
        self.write(finished=False)
        self._end_if_collapsed(report, before)
        self.stop = flat(self.reports, self._config)

    def trust(self, labels: dict[str, Any]) -> None:
        """Look at the measures of the next cycle's labels.

        Raises:
            RunCollapsedError: they show that the run has collapsed.
        """
        self._end_if_collapsed(labels, self.reports)

    def last_labelled(self) -> int | None:
        """Return the newest cycle that has labels."""
        return next((report["cycle"] for report in reversed(self.reports) if report.get("labels")), None)

    def write(self, finished: bool) -> None:
        """Publish the reports, why the run was stopped if it was, and the name of its best student."""
        best = self._pool.best()
        report = {
            "finished": finished,
            "stopped": self.stop.as_json() if self.stop else None,
            "best": best.name if best else None,
            "cycles": self.reports,
        }
        write_json(self._folder / "report.json", report)

    def _end_if_collapsed(self, now: dict[str, Any], before: list[dict[str, Any]]) -> None:
        self.stop = collapsed(now, before, self._config)
        if self.stop is None:
            return
        self.write(finished=False)
        self._events.add("run stopped", **self.stop.as_json())
        best = self._pool.best() or self._pool.latest()
        kept = f" The best student is kept: {best.name}." if best else ""
        raise RunCollapsedError(f"run folder {self._folder}: {self.stop.reason}.{kept}")
