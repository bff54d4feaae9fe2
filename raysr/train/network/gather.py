"""What ranks tell all others, and the address that each of them learns of itself in that way."""

import os
from typing import Protocol, TypeVar

import torch.distributed as dist

from raysr.train.network.addresses import gloo_address, is_loopback, source_towards

T = TypeVar("T")


class Gather(Protocol):
    """Gives every rank's value to all, by rank."""

    def __call__(self, value: T) -> list[T]: ...


def gather_objects(value: T) -> list[T]:
    """Gather over the default process group."""
    found: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def own_address(towards: str, gather: Gather) -> str:
    """Return this host's address as the others see it; all ranks ask, ``towards`` being the same host for all."""
    address = source_towards(towards)
    others = [other for other in gather(address) if not is_loopback(other)]
    return source_towards(others[0]) if is_loopback(address) and others else address


def address_in_group() -> str:
    """Return this host's address as the default process group's others see it; all its ranks ask."""
    return own_address(os.environ.get("MASTER_ADDR") or gloo_address(), gather_objects)
