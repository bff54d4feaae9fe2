from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysr.corpus.importers.names import Unassigned, assign
from raysr.corpus.importers.scan import Found

FOLDER = Path("/a/b")
PARTS = st.sampled_from(["a", "b", "1", "a.wav"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
NAMES = st.builds(
    "{}{}{}".format, st.sampled_from(["", "./", "/"]), PATHS, st.sampled_from(["", ".wav", ".MP3"])
)


def found(name: str) -> Found:
    return Found(FOLDER / name, name, name[: -len(Path(name).suffix)])


@st.composite
def files(draw: st.DrawFn) -> list[Found]:
    """Draw a folder as it is scanned: every id once."""
    ids = draw(st.lists(PATHS, max_size=8, unique=True))
    return [found(name + draw(st.sampled_from([".wav", ".g722"]))) for name in ids]


def brute_force(files: list[Found], names: list[str]) -> list[tuple[list[Found], Found | None]]:
    """Return for each name the files it may mean and the one it gets, by comparing all with all."""
    keys = [PurePosixPath(name.lstrip("/")) for name in names]
    given: dict[int, Found] = {}
    fits: dict[int, list[Found]] = {}
    for below, parts in [(True, 0), *((False, parts) for parts in range(9, 0, -1))]:
        for n, key in enumerate(keys):
            whole = [file for file in files if meant(file, key, PurePosixPath(file.name))]
            if bool(whole) != below or (not below and len(key.parts) != parts):
                continue
            candidates = whole or [
                file for file in files if meant(file, key, PurePosixPath(file.path), len(key.parts))
            ]
            exact = [file for file in candidates if file.path.parts[-len(key.parts) :] == key.parts]
            candidates = exact or candidates
            free = [file for file in candidates if file not in given.values()]
            fits[n] = free or candidates
            if len(free) == 1:
                given[n] = free[0]
    return [(fits[n], given.get(n)) for n in range(len(keys))]


def meant(file: Found, key: PurePosixPath, path: PurePosixPath, last: int = 0) -> bool:
    """Is ``key`` the path (or its ``last`` parts) with its suffix, without, or with that of another form?"""
    bare = path.with_name(path.name.removesuffix(file.path.suffix)).parts[-last:]
    stem = key.with_suffix("") if key.suffix.lower() in {".wav", ".mp3"} else key
    return key.parts == path.parts[-last:] or bare in (key.parts, stem.parts)


@given(files(), st.lists(NAMES, max_size=8))
def test_names_get_the_files_that_comparing_all_with_all_gives(files: list[Found], names: list[str]):
    outcomes = assign(files, names)
    for outcome, (fits, file) in zip(outcomes, brute_force(files, names), strict=True):
        assert outcome == file if file else isinstance(outcome, Unassigned) and outcome.fits == fits
    assigned = [outcome.id for outcome in outcomes if isinstance(outcome, Found)]
    assert len(assigned) == len(set(assigned))
    for outcome in outcomes:
        if isinstance(outcome, Unassigned) and outcome.owner is not None:
            assert outcomes[outcome.owner] == outcome.fits[0]


@pytest.mark.parametrize(
    ("paths", "name", "expected"),
    [
        (["a.wav"], "a.wav", ["a.wav"]),
        (["a.wav"], "a", ["a.wav"]),
        (["a.wav"], "a.mp3", ["a.wav"]),
        (["a.wav"], "./a", ["a.wav"]),
        (["x/a.wav"], "x\\a.wav", ["x/a.wav"]),
        (["a.wav", "x/a.wav"], "a", ["a.wav"]),
        (["en/x/a.wav", "en/y/a.wav"], "x/a", ["en/x/a.wav"]),
        (["en/x/a.wav", "en/y/a.wav"], "a", ["en/x/a.wav", "en/y/a.wav"]),
        (["a.wav"], "b/a", ["a.wav"]),
        (["a.wav"], "/a/b/a.wav", ["a.wav"]),
        (["x/a.wav"], "y/a", []),
        (["xa.wav", "-a.wav"], "a", []),
        (["x/a.wav", "y/a.wav.flac"], "a.wav", ["x/a.wav"]),
        (["a.wav", "a.wav.flac"], "a.wav", ["a.wav"]),
        (["a.wav.flac"], "a.wav", ["a.wav.flac"]),
    ],
)
def test_a_name_is_a_path_or_its_end(paths: list[str], name: str, expected: list[str]):
    (outcome,) = assign([found(path) for path in paths], [name])
    fits = [outcome] if isinstance(outcome, Found) else outcome.fits
    assert [file.name for file in fits] == expected


def test_paths_below_the_folder_go_first_and_longer_names_before_shorter():
    file = found("1.wav")
    assert assign([file], ["a/b/1", "b/1", "1"]) == [Unassigned([file], owner=2)] * 2 + [file]
    assert assign([file], ["b/1", "a/b/1"]) == [Unassigned([file], owner=1), file]


def test_what_longer_names_have_is_no_candidate():
    files = [found("en/sorry.g722"), found("en/followme/sorry.g722")]
    assert assign(files, ["sorry", "followme/sorry"]) == files
    assert assign(files, ["sorry", "sorry"]) == [Unassigned(files)] * 2
    assert assign(files[:1], ["sorry", "en/sorry", "en/sorry.g722"]) == [
        Unassigned(files[:1], owner=1),
        files[0],
        Unassigned(files[:1], owner=1),
    ]
