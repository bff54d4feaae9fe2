"""What a store is to the rest: objects that are read and written whole, and errors in one line."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from raysr.errors import RaysrError, RunError, one_line


class Objects:
    """The objects below a URI. What goes wrong is told within :meth:`asking`, where FileNotFoundError is let be caught.

    Args:
        uri: such as ``s3://bucket/runs/mine``.
        apart: have a client of its own, that nothing large of another one's is in the way of.
    """

    def __init__(self, uri: str, apart: bool = False) -> None:
        self.uri = uri.rstrip("/")
        self._local = self.uri.startswith("file:")
        options = {"auto_mkdir": True} if self._local else {}
        try:
            self.files: Any
            self.files, root = fsspec.core.url_to_fs(
                self.uri, use_listings_cache=False, skip_instance_cache=apart, **options
            )
        except (ImportError, ValueError) as error:
            mend = "; install raysr[s3]" if self.uri.startswith("s3:") else ""
            raise RunError(f"{self.uri}: cannot be opened ({one_line(str(error))}){mend}") from None
        self._root = root.rstrip("/")

    def read(self, name: str) -> bytes:
        """Return an object."""
        return bytes(self.files.cat_file(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        """Return an object to be read bit by bit."""
        return cast(BinaryIO, self.files.open(self._path(name), "rb"))

    def write(self, name: str, data: bytes, create: bool = False) -> None:
        """Write an object in one step; with ``create`` fail where it is there."""
        path = self._path(name)
        if not self._local:
            self.files.pipe_file(path, data, mode="create" if create else "overwrite")
            return
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        self.files.pipe_file(partial, data)
        try:
            if create:
                os.link(partial, path)
            else:
                os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)

    def upload(self, file: Path, name: str) -> None:
        """Write an object from a file of any size."""
        self.files.put_file(str(file), self._path(name))

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.files.rm_file(self._path(name))

    def names(self, below: str) -> list[str]:
        """Return the last parts of the names of all objects below a name."""
        return [name.rpartition("/")[2] for name in self.files.find(self._path(below))]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Raise what a client raises as a :class:`RunError` that names the store."""
        try:
            yield
        except RaysrError:
            raise
        except Exception as error:
            # clients have errors of their own, and not all of them are OSErrors
            raise RunError(f"{self.uri}: {type(error).__name__}: {one_line(str(error))}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
