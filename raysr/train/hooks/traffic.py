"""What crosses the network for gradients, counted where it is sent."""

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass
class Traffic:
    """Bytes of this rank since the count began.

    Attributes:
        payload: handed to collectives: the compressed gradients themselves.
        wire: sent by this rank's ring algorithms for them, headers aside: 2 (n - 1) / n of an all-reduce's payload
            for n ranks (Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002), (n - 1) / n of an all-to-all's,
            n - 1 times an all-gather's.
    """

    payload: int = 0
    wire: float = 0.0

    def all_reduce(self, tensor: Tensor) -> None:
        ranks = dist.get_world_size()
        self._add(tensor, 2 * (ranks - 1) / ranks)

    def all_to_all(self, tensor: Tensor) -> None:
        ranks = dist.get_world_size()
        self._add(tensor, (ranks - 1) / ranks)

    def all_gather(self, part: Tensor) -> None:
        """Count the gathering of every rank's ``part``."""
        self._add(part, dist.get_world_size() - 1)

    def _add(self, tensor: Tensor, times: float) -> None:
        size = tensor.numel() * tensor.element_size()
        self.payload += size
        self.wire += times * size
