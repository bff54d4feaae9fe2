"""The roll call before a group: whoever else reaches the store says nothing that ranks believe."""

import base64
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from raysr.errors import RunError
from raysr.train.network.roll import Roll


class Command:
    """Runs when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("it ran",)


def both(store: dist.Store, *secrets: bytes) -> list[list[str]]:
    rolls = [Roll(store, rank, 2, 5.0, secret) for rank, secret in enumerate(secrets)]
    with ThreadPoolExecutor(2) as executor:
        return list(executor.map(lambda roll: roll.gather(f"rank {roll.rank}"), rolls))


def test_ranks_hear_each_other_with_a_secret_and_without() -> None:
    for secret in (b"", b"a secret of both"):
        assert both(dist.HashStore(), secret, secret) == [["rank 0", "rank 1"]] * 2


def test_who_does_not_know_it_is_not_believed_and_nothing_of_its_runs() -> None:
    with pytest.raises(RunError, match="rank 1 is said to have said is not signed"):
        both(dist.HashStore(), b"a secret", b"another")
    store = dist.HashStore()
    store.set("1/1", base64.b64encode(bytes(32) + pickle.dumps(Command())).decode())
    with pytest.raises(RunError, match="rank 1 is said to have said is not signed"):
        Roll(store, 0, 2, 5.0, b"a secret").gather("rank 0")
