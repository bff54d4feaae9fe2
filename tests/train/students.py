"""A student as the training loop has it, made in any process, that steps over batches of any shape."""

import os
import signal
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raysr.model.config import ModelConfig
from raysr.model.model import AsrModel
from raysr.train.hooks.layout import gathering
from raysr.train.hooks.powersgd import PowerSGD
from raysr.train.job import OptimiserConfig
from raysr.train.memory.shapes import Shape
from raysr.train.memory.trial import Step
from raysr.train.optim import build_optimiser


@dataclass(frozen=True)
class Student:
    """Makes a student under DDP, with or without PowerSGD."""

    model: ModelConfig
    vocab_size: int
    power_sgd: bool = False

    def __call__(self, device: torch.device) -> Step:
        model = AsrModel(self.model, self.vocab_size).to(device).train()
        loss = DistributedDataParallel(model, gradient_as_bucket_view=True)
        if self.power_sgd:
            loss.register_comm_hook(None, gathering(model, PowerSGD()))
        optimiser = build_optimiser(model, OptimiserConfig())

        def step(shape: Shape) -> None:
            features = torch.randn(shape.utterances, shape.frames, self.model.mel_bins, device=device)
            lengths = torch.full((shape.utterances,), shape.frames, device=device)
            tokens = torch.randint(3, self.vocab_size, (shape.utterances, shape.tokens), device=device)
            token_lengths = torch.full((shape.utterances,), shape.tokens, device=device)
            losses = loss(features, lengths, tokens, token_lengths, torch.Generator().manual_seed(0))
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()

        return step


class Dying:
    """A student whose steps kill their process, as the kernel does where memory ends."""

    def __call__(self, device: torch.device) -> Step:
        return lambda shape: os.kill(os.getpid(), signal.SIGKILL)


class Broken:
    """A student whose steps fail."""

    def __call__(self, device: torch.device) -> Step:
        return lambda shape: 1 // 0
