"""What an installation of a wheel brings today, with versions and hashes: an SBOM in CycloneDX's form.

python -m release.sbom dist/raysr-0.1.0-py3-none-any.whl -o dist/raysr-0.1.0.cdx.json

pip resolves the wheel's requirements without installing them; `cyclonedx-py` writes what it found.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text("\n".join(requirements(resolved(options.wheel, Path(folder)))) + "\n")
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(pinned), "--of", "JSON"]
        subprocess.run([*command, "--output-reproducible", "-o", str(options.out)], check=True)


def resolved(wheel: Path, folder: Path) -> list[dict[str, Any]]:
    """Return what pip would install, as its report has it."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    subprocess.run([*command, "--report", str(report), str(wheel)], check=True)
    found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return found


def requirements(install: list[dict[str, Any]]) -> list[str]:
    """Return a line for each package: name, version, hash."""
    lines = []
    for one in install:
        about, archive = one["metadata"], one["download_info"].get("archive_info", {})
        digest = archive.get("hashes", {}).get("sha256")
        lines.append(f"{about['name']}=={about['version']}" + (f" --hash=sha256:{digest}" if digest else ""))
    return sorted(lines, key=str.lower)


if __name__ == "__main__":
    main()
