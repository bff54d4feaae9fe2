"""Compiling inner loops: numba where a search goes from token to token and numpy would go a step at a time.

What such functions take apart often is kept in arrays of records: an array that is taken out of a tuple has its
references counted every time.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of numbers and arrays at its first call, without the GIL.

    The machine code is kept on disk for the next process, beside the source or in the user's cache folder; where
    neither can be written every process compiles for itself.
    """
    dispatcher: Any = numba.njit(nogil=True, forceinline=True)(function)
    with suppress(RuntimeError):  # there is no folder to keep it in
        dispatcher._cache = _Cache(function)
    return cast(Function, dispatcher)


class _Cache(FunctionCache):
    """Machine code that is valid for the sources of this whole package.

    numba's own cache looks at the file of the function alone, not at those of the functions that it calls.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _sources())


@cache
def _sources() -> str:
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()
