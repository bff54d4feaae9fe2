"""Low-rank gradients: PowerSGD (Vogels, Karimireddy and Jaggi 2019, arXiv 1905.13727), two collectives a step.

Every matrix M, an error that earlier steps left behind included, is sent as P = M Q and Q' = Mᵀ P̂, where P̂ is P made
orthonormal; all ranks go on with P̂ Q'ᵀ of the means, and each keeps as its error what that lacks of its own M. Q is
that of the last step (warm start), so that one power iteration a step is enough. Vectors, and matrices too small to
gain, go as they are, in the same buffer as P.

What torch's hook lacks (2.14) and this has: any number of buckets on gloo, a state by parameter name that can be saved
and goes on under other buckets, errors that a step of infinite gradients (as loss scaling provokes) leaves as they are
and that know the scale, and a Q that comes back where a parameter had no gradient.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raysr.train.hooks.traffic import Traffic


@dataclass
class PowerSGD:
    """Reduces gradients of all ranks to their mean, or nearly so.

    Attributes:
        rank: of the approximation of a matrix.
        start: steps in which gradients are averaged as they are, before the first that is approximated.
        error_feedback: whether what an approximation lacks joins the next gradient. Without it accuracy suffers.
        warm_start: whether Q is that of the last step; drawn anew otherwise.
        min_ratio: a matrix is approximated where that sends so many times fewer numbers.
        wire: the type in which numbers are sent; the mean is taken in it, too.
        seed: of the draws of Q, the same on all ranks.
        scale: by which the loss of this step was multiplied.
        traffic: counts what is sent.
    """

    rank: int = 4
    start: int = 0
    error_feedback: bool = True
    warm_start: bool = True
    min_ratio: float = 2.0
    wire: torch.dtype = torch.float32
    seed: int = 0
    scale: float = 1.0
    traffic: Traffic = field(default_factory=Traffic)
    step: int = 0
    errors: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, gradients: Mapping[str, Tensor]) -> None:
        """Replace the gradients, float32, in place; all ranks call this with the same names in the same order.

        Where any rank's gradients are not finite, those of all ranks become NaN, and the state stays as it is.
        """
        approximated = [n for n, g in gradients.items() if self.step >= self.start and self._gains(g)]
        sent_whole = [n for n in gradients if n not in set(approximated)]
        matrices = {n: self._matrix(n, gradients[n]) for n in approximated}
        factors = self._prepared(matrices)
        left = {n: m @ factors[n] for n, m in matrices.items()}
        means, finite = self._mean([*(gradients[n] for n in sent_whole), *left.values()])
        if not finite:
            for gradient in gradients.values():
                gradient.fill_(float("nan"))
            return
        for name, mean in zip(sent_whole, means, strict=False):
            gradients[name].copy_(mean)
        bases = dict(zip(left, orthonormal(means[len(sent_whole) :]), strict=True))
        right, _ = self._mean([matrices[n].T @ basis for n, basis in bases.items()])
        for (name, basis), factor in zip(bases.items(), right, strict=True):
            approximation = basis @ factor.T
            if self.error_feedback:
                self.errors[name] = matrices[name] - approximation
            # a place of its own: how a product is rounded depends on the alignment of what is multiplied, and one that
            # is read from a checkpoint does not lie within the buffer of all
            self.factors[name] = factor.clone()
            gradients[name].copy_(approximation.view_as(gradients[name])).mul_(self.scale)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank needs to go on exactly."""
        return {"step": self.step, "errors": self.errors, "factors": self.factors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where this rank's :meth:`state_dict` was taken."""
        self.step = int(state["step"])
        self.errors = dict(state["errors"])
        self.factors = dict(state["factors"])

    def _gains(self, gradient: Tensor) -> bool:
        if gradient.ndim < 2:
            return False
        rows, columns = gradient.shape[0], gradient[0].numel()
        return gradient.numel() > self.min_ratio * self.rank * (rows + columns)

    def _matrix(self, name: str, gradient: Tensor) -> Tensor:
        """Return a copy of the gradient (rows, columns), of the unscaled loss, with the error of earlier steps."""
        matrix = gradient.reshape(len(gradient), -1) / self.scale
        error = self.errors.get(name)
        return matrix if error is None else matrix + error

    def _prepared(self, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a Q for every matrix, drawn where there is none, or where the last one has come to nothing.

        A parameter without gradient leaves a Q of zeros, from which no P would ever differ from zero.
        """
        known = [name for name in matrices if self.warm_start and name in self.factors]
        largest = torch.stack([self.factors[name].abs().max() for name in known]).tolist() if known else []
        factors = {name: self.factors[name] for name, size in zip(known, largest, strict=True) if size > 0}
        for name, matrix in matrices.items():
            if name not in factors:
                seed = zlib.crc32(f"{self.seed} {self.step} {name}".encode())
                draws = torch.Generator().manual_seed(seed)
                drawn = torch.randn(matrix.shape[1], self.rank, generator=draws)
                factors[name] = drawn.to(matrix.device)
        return factors

    def _mean(self, tensors: list[Tensor]) -> tuple[list[Tensor], bool]:
        """Return the mean over all ranks of each tensor, and whether all is finite, in one collective."""
        if not tensors:
            return [], True
        flat = torch.cat([tensor.flatten() for tensor in tensors]).div_(dist.get_world_size()).to(self.wire)
        self.traffic.all_reduce(flat)
        dist.all_reduce(flat)
        parts = flat.float().split([tensor.numel() for tensor in tensors])
        means = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
        return means, bool(flat.isfinite().all())


def orthonormal(matrices: list[Tensor]) -> list[Tensor]:
    """Return an orthonormal basis (n, r) for each matrix (n, r) of full or lower rank, those of one shape together.

    The same bits on every rank, as long as their matrices are the same: the factorisation has no random part.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, matrix in enumerate(matrices):
        groups.setdefault(tuple(matrix.shape), []).append(place)
    bases: dict[int, Tensor] = {}
    for places in groups.values():
        basis = torch.linalg.qr(torch.stack([matrices[place] for place in places])).Q
        bases.update(zip(places, basis, strict=True))
    return [bases[place] for place in range(len(matrices))]
