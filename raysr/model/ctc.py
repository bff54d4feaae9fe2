"""The CTC head and its loss (Graves et al. 2006), always in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLANK = 0


class CtcHead(nn.Module):
    """A linear layer over the vocabulary; token 0 is the blank."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, vocab_size)

    def log_probs(self, out: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V) float32, also under autocast."""
        with torch.autocast(out.device.type, enabled=False):
            logits = F.linear(out.float(), self.linear.weight.float(), self.linear.bias.float())
            return logits.log_softmax(dim=-1)

    def loss(self, out: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        """Return -log p(tokens) of every utterance (B,), summed over its frames; 0 where it is impossible."""
        log_probs = self.log_probs(out).transpose(0, 1)  # (T, B, V)
        return F.ctc_loss(
            log_probs, tokens, lengths, token_lengths, blank=BLANK, reduction="none", zero_infinity=True
        )


def frames_needed(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Return the fewest frames (B,) a CTC path of the tokens (B, U) takes: a blank goes between equals."""
    equal = tokens[:, 1:] == tokens[:, :-1]  # (B, U - 1)
    inside = torch.arange(equal.shape[1], device=tokens.device) < token_lengths.unsqueeze(1) - 1
    repeats = (equal & inside).sum(dim=1)
    return token_lengths + repeats
