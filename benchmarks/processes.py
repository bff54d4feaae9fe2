"""What a process and its descendants take: CPU time and memory, read from /proc."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(after[1]), []).append(int(stat.parent.name))
    found = [pid]
    for process in found:
        found += parents.get(process, [])
    return found


def cpu_by_process(pid: int) -> dict[int, float]:
    """Return the CPU seconds that each process of a tree has taken, without those that have ended."""
    return {process: _cpu(process) for process in tree(pid)}


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process tree has taken, without those that have ended."""
    return sum(cpu_by_process(pid).values())


def _cpu(pid: int) -> float:
    try:
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after[11]) + int(after[12])) / TICK


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB (10⁶ bytes), exact unlike /proc/PID/statm; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(round(int(line.split()[1]) * 1024 / 1e6, 3) for line in lines if line.startswith("Rss:"))
