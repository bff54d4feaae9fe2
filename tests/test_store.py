"""A folder in an object store is always one that was whole, has one writer, and costs no more than what changed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_store import BUCKET, store_of_this_process

from raysr.cli import app as cli
from raysr.errors import RunError
from raysr.store import folder as module
from raysr.store import owner
from raysr.store.folder import INDEX, OBJECTS, Store, files_in
from raysr.store.owner import OWNER, owned


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """A server that speaks S3, for the clients of this process and of its children."""
    with store_of_this_process():
        yield


@pytest.fixture(params=["s3", "file"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/store"
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def write(folder: Path, files: dict[str, bytes]) -> list[str]:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return list(files)


def read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def objects(uri: str) -> set[str]:
    files, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    return {name.rpartition("/")[2] for name in files.find(f"{root}/{OBJECTS}")}


def hashes(files: dict[str, bytes]) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in files.values()}


def test_what_was_kept_is_fetched_by_another_host(uri: str, tmp_path: Path) -> None:
    first = {"pool/one/model": b"weights" * 1000, "events.jsonl": b"{}\n", "empty": b""}
    store = Store(uri)
    assert store.index() is None
    assert Store(uri).fetch(tmp_path / "nothing") is None
    assert store.keep(tmp_path / "a", write(tmp_path / "a", first)).number == 1
    assert Store(uri).fetch(tmp_path / "b") == store.index()
    assert read(tmp_path / "b") == first
    second = {"events.jsonl": b"{}\n{}\n", "pool/two/model": b"weights" * 1000}
    write(tmp_path / "a", second)
    (tmp_path / "a" / "empty").unlink()
    assert store.keep(tmp_path / "a", files_in(tmp_path / "a")).number == 2
    Store(uri).fetch(tmp_path / "c", "pool/")
    assert read(tmp_path / "c") == {f"pool/{n}/model": b"weights" * 1000 for n in ("one", "two")}
    Store(uri).fetch(tmp_path / "b")
    assert read(tmp_path / "b") == {"empty": b""} | read(tmp_path / "a"), "what is there besides stays"
    assert objects(uri) == hashes(first) | hashes(read(tmp_path / "a")), "who reads the one before finds it"
    store.keep(tmp_path / "a", files_in(tmp_path / "a"))
    assert objects(uri) == hashes(read(tmp_path / "a"))


def test_only_what_changed_is_written(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = tmp_path / "a", Store(uri)
    names = write(folder, {f"{n}": str(n).encode() for n in range(5)})
    store.keep(folder, names)
    asked = Counted(store, monkeypatch)
    write(folder, {"3": b"other"})
    store.keep(folder, names)
    assert asked.calls.count("pipe_file") == 2  # the object and the index
    again = Store(uri)
    asked = Counted(again, monkeypatch)
    again.keep(folder, names)
    assert asked.calls.count("pipe_file") == 1  # a new process finds what is there


def test_a_large_file_is_not_read_into_memory(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    content = os.urandom(300_000)
    Store(uri).keep(tmp_path / "a", write(tmp_path / "a", {"large": content}))
    Store(uri).fetch(tmp_path / "b")
    assert read(tmp_path / "b") == {"large": content}


class Counted:
    """Notes what is asked of a store's files; from a chosen request on each one fails."""

    def __init__(
        self,
        store: Store,
        patch: pytest.MonkeyPatch | None = None,
        most: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.calls: list[str] = []
        self._files, self._most, self._error = store.objects.files, most, error or Died()
        if patch is None:
            store.objects.files = self
        else:
            patch.setattr(store.objects, "files", self)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)

        def asked(*arguments: Any, **options: Any) -> Any:
            if self._most is not None and len(self.calls) >= self._most:
                raise self._error
            self.calls.append(name)
            return found(*arguments, **options)

        return asked


class Died(BaseException):
    """The writer, in the middle."""


NAMES = st.sampled_from(["a", "b", "deep/er/c", "d"])
STATES = st.lists(st.dictionaries(NAMES, st.sampled_from([b"", b"1", b"2", b"3"])), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(states=STATES, dies=st.data())
def test_a_writer_that_dies_anywhere_leaves_one_state_or_the_next(
    states: list[dict[str, bytes]], dies: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, uri = Path(place) / "run", f"file://{place}/store"
        before: dict[str, bytes] | None = None
        for number, files in enumerate(states):
            shutil.rmtree(folder, ignore_errors=True)
            store = Store(uri)
            Counted(store, most=dies.draw(st.integers(0, 20)))
            try:
                store.keep(folder, write(folder, files))
                possible = [files]
            except Died:
                possible = [files, before]
            fetched = Path(place) / f"fetched-{number}"
            index = Store(uri).fetch(fetched)
            found = None if index is None else read(fetched) if fetched.exists() else {}
            assert found in possible
            before = found
        last = Store(uri)
        for _ in range(2):
            last.keep(folder, files_in(folder))
        assert objects(uri) == hashes(read(folder) if folder.exists() else {}), "what the dead have left goes"


def test_one_that_reads_while_another_is_kept_has_the_newer_one(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = Store(uri), Store(uri)
    writer.keep(tmp_path / "a", write(tmp_path / "a", {"one": b"1", "two": b"2"}))
    fetched: list[str] = []
    fetch_one = reader._fetch

    def interrupted(path: Path, content: str) -> None:
        if not fetched:
            fetched.append(content)
            for content in (b"5", b"3"):  # of the index before the last one the objects stay
                writer.keep(tmp_path / "a", write(tmp_path / "a", {"one": content, "two": b"4"}))
        fetch_one(path, content)

    monkeypatch.setattr(reader, "_fetch", interrupted)
    index = reader.fetch(tmp_path / "b")
    assert index is not None
    assert index.number == 3
    assert read(tmp_path / "b") == {"one": b"3", "two": b"4"}


def test_no_index_follows_on_one_that_somebody_else_wrote(uri: str, tmp_path: Path) -> None:
    one, other = Store(uri), Store(uri)
    names = write(tmp_path / "a", {"one": b"1"})
    for _ in range(2):
        one.keep(tmp_path / "a", names)
    held = other.keep(tmp_path / "a", names)
    write(tmp_path / "a", {"one": b"2"})
    with pytest.raises(RunError, match=rf"^{uri}: .*, process {os.getpid()} has written there meanwhile"):
        one.keep(tmp_path / "a", names)
    assert Store(uri).index() == held
    Store(uri).fetch(tmp_path / "b")
    assert read(tmp_path / "b") == {"one": b"1"}


def test_a_writer_goes_on_after_a_request_that_failed(uri: str, tmp_path: Path) -> None:
    store = Store(uri)
    states = [{"one": str(n).encode(), "two": b"2"} for n in range(12)]
    told: list[str] = []
    for number, files in enumerate(states):
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        names = write(tmp_path / "a", files)
        whole = store.objects.files
        Counted(store, most=number, error=TimeoutError("no answer"))
        try:
            store.keep(tmp_path / "a", names)
        except RunError as error:
            told.append(str(error))
        store.objects.files = whole
        store.keep(tmp_path / "a", names)
        Store(uri).fetch(tmp_path / f"b{number}")
        assert read(tmp_path / f"b{number}") == files
    assert 3 < len(told) < 12
    assert all("TimeoutError: no answer" in line for line in told)


def test_files_of_a_group_are_kept_all_or_none(uri: str, tmp_path: Path) -> None:
    names = write(tmp_path / "a", {"c1/x": b"1", "c1/y": b"2", "c2/x": b"3", "log": b"4"})
    (tmp_path / "a" / "c1" / "y").unlink()
    index = Store(uri).keep(tmp_path / "a", names, together=lambda name: name.rpartition("/")[0] or None)
    assert set(index.files) == {"c2/x", "log"}


def test_what_is_damaged_or_gone_is_named(uri: str, tmp_path: Path) -> None:
    store = Store(uri)
    index = store.keep(tmp_path / "a", write(tmp_path / "a", {"model": b"weights"}))
    files, root = fsspec.core.url_to_fs(uri)
    at = f"{root}/{OBJECTS}/{index.files['model'][:2]}/{index.files['model']}"
    files.pipe_file(at, b"weighty")
    with pytest.raises(RunError, match=f"^{uri}: the content of model is damaged there$"):
        Store(uri).fetch(tmp_path / "b")
    assert not (tmp_path / "b" / "model").exists()
    files.rm_file(at)
    with pytest.raises(RunError, match=f"^{uri}: .* is missing of what index.json names$"):
        Store(uri).fetch(tmp_path / "b")
    whole = json.loads(files.cat_file(f"{root}/{INDEX}"))
    outside = {**whole, "files": {"../model": index.files["model"]}}
    for damaged in (b"{", b"[]", b"{}", json.dumps(outside).encode()):
        files.pipe_file(f"{root}/{INDEX}", damaged)
        with pytest.raises(RunError, match=f"^{uri}/index.json is damaged"):
            Store(uri).fetch(tmp_path / "b")
    assert not (tmp_path / "model").exists()


def test_a_store_that_cannot_be_reached_is_one_line(s3: None, tmp_path: Path) -> None:
    write(tmp_path, {"one": b"1"})
    for uri, said in (
        ("s3://nobody-has-this/x", "bucket does not exist"),
        ("nothing://x/y", "cannot be opened"),
    ):
        with pytest.raises(RunError, match=f"^{uri}: [^\n]*{said}[^\n]*$"):
            Store(uri).keep(tmp_path, ["one"])
    with (
        pytest.raises(RunError, match=r"^s3://nobody-has-this/x: [^\n]*$"),
        owned("s3://nobody-has-this/x"),
    ):
        pass


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT_S", 0.3), ("STALE_S", 3.0), ("LOOK_S", 0.1)):
        monkeypatch.setattr(owner, name, seconds)


def test_a_second_writer_is_told_who_is_the_first(uri: str, impatient: None) -> None:
    told, said = rf"{uri} is in use by .*, process {os.getpid()}: wait for it", list[str]()
    with owned(uri), pytest.raises(RunError, match=told), owned(uri, said.append):
        pass
    assert len(said) == 1
    with owned(uri, said.append):
        pass
    assert len(said) == 1
    files, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    assert not files.exists(f"{root}/{OWNER}")


@pytest.mark.parametrize("host", ["ours", "another"])
def test_one_that_was_killed_is_taken_for_dead(s3: None, impatient: None, host: str) -> None:
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    elsewhere = "import socket\nsocket.gethostname = lambda: 'elsewhere'\n" if host == "another" else ""
    program = (
        f"{elsewhere}import time\nfrom raysr.store import owner\nowner.BEAT_S = 0.3\n"
        f"with owner.owned({uri!r}):\n    print('mine', flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(RunError, match=f"process {process.pid}: wait for it"), owned(uri):
            pass
        process.kill()
        process.wait()
        started = time.monotonic()
        with owned(uri) as ownership:
            assert not ownership.lost.is_set()
            assert (time.monotonic() - started > owner.STALE_S) == (host == "another")
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("before", ["nobody", "a dead one"])
def test_of_several_that_come_at_once_one_is_the_owner(s3: None, impatient: None, before: str) -> None:
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    if before == "a dead one":
        files, root = fsspec.core.url_to_fs(uri)
        files.pipe_file(f"{root}/{OWNER}", json.dumps({"id": "dead", "host": "gone", "pid": 1}).encode())
    came, over, refused = threading.Barrier(4), threading.Event(), list[str]()
    owners: list[int] = []

    def come(number: int) -> None:
        came.wait()
        try:
            with owned(uri):
                owners.append(number)
                over.wait(30)
        except RunError as error:
            refused.append(str(error))
            if len(refused) == 3:
                over.set()

    threads = [threading.Thread(target=come, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(owners), len(refused)) == (1, 3)


def test_one_that_was_wrongly_taken_for_dead_learns_it(uri: str, impatient: None) -> None:
    files, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    other = json.dumps({"id": "other", "host": "elsewhere", "pid": 1}).encode()
    with owned(uri) as ownership:
        files.pipe_file(f"{root}/{OWNER}", other)
        assert ownership.lost.wait(20)
    assert files.cat_file(f"{root}/{OWNER}") == other, "what is another's stays"


def test_hidden_files_and_features_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"features/x": b"", "a/features/y": b"", ".lock": b"", "a/.z.partial": b"", "b": b""})
    assert files_in(tmp_path, ["features"]) == ["b", "a/features/y"]
    assert files_in(tmp_path / "nowhere") == []


def test_a_run_is_fetched_by_a_command(s3: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    assert cli.run(["fetch", uri, str(tmp_path / "b")]) == 2
    assert f"error: {uri} keeps no run" in capsys.readouterr().err
    Store(uri).keep(tmp_path / "a", write(tmp_path / "a", {"pool/x/model": b"1", "report.json": b"{}"}))
    assert cli.run(["fetch", uri, str(tmp_path / "b"), "--below", "poll/"]) == 2
    assert "keeps nothing below poll/; there is pool/, report.json" in capsys.readouterr().err
    assert cli.run(["fetch", uri, str(tmp_path / "b"), "--below", "pool/"]) == 0
    assert read(tmp_path / "b") == {"pool/x/model": b"1"}
    assert capsys.readouterr().out.startswith("1 files, as ")
