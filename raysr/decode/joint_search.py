"""One token of one-pass decoding: extending, choosing, ending, of all hypotheses and utterances at once."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from raysr.config import Config
from raysr.decode.hypothesis import BLANK, EOS, Hypothesis
from raysr.decode.joint_parts import CtcPart, Part
from raysr.decode.joint_state import TokenBeam
from raysr.model.decoder import take

END_LENGTHS, END_DROP = 3, -10.0


class JointConfig(Config):
    """Options of the search.

    Attributes:
        beam: hypotheses kept after each token.
        joint_ctc_weight: λ in λ·ctc + (1 - λ)·attention; 0 needs no CTC head, 1 no attention decoder.
        pre_beam: tokens that CTC scores for each hypothesis, the best by the other scores; 0 is all of them.
            Worth it for vocabularies of thousands.
        max_length_ratio: most tokens for each encoder frame; with CTC never more than one a frame.
        end_detection: stop where hypotheses that ended at each of the last three lengths are far below the
            best one (Watanabe et al. 2017, eq. 50); without it only a bound or the length limit ends a search.
        lm_weight: weight of the language model's log-probability.
        length_bonus: added for every token.
    """

    beam: int = Field(default=16, ge=1)
    joint_ctc_weight: float = Field(default=0.3, ge=0, le=1)
    pre_beam: int = Field(default=0, ge=0)
    max_length_ratio: float = Field(default=1.0, gt=0)
    end_detection: bool = True
    lm_weight: float = Field(default=0.5, ge=0)
    length_bonus: float = 0.0


@dataclass(slots=True)
class Weighted:
    """A part of the score, its name and its weight."""

    name: str
    weight: float
    part: Part


class JointSearch:
    """The state of the search: the utterances still in it, their open hypotheses and those that ended."""

    def __init__(
        self,
        config: JointConfig,
        ctc: CtcPart | None,
        others: list[Weighted],
        utterances: Tensor,
        limits: Tensor,
        n: int,
    ) -> None:
        self.utterances = utterances
        self._config = config
        self._ctc, self._others = ctc, others
        self._limits = limits
        self._length = 0
        names = [p.name for p in others]
        self._names = [*names, "ctc"] if ctc else names
        shape = (len(self._names), int(limits.max()) + 1, limits.device)
        self._open = TokenBeam.empty(len(limits), 1, *shape)
        self._open.score[:] = 0.0
        self._ended = TokenBeam.empty(len(limits), n, *shape)
        self._ended_of_late = torch.full((len(limits), END_LENGTHS), torch.inf, device=limits.device)
        self._bounded = "bias" not in names

    def step(self) -> None:
        """Extend the open hypotheses by one token each, or end them."""
        tokens, totals, parts = self._extensions()
        width = totals.shape[2]
        flat = totals.flatten(1)  # (B, N x C)
        score, index = flat.topk(min(self._config.beam, flat.shape[1]), dim=1)
        source = index // width
        possible = score > -torch.inf
        chosen = tokens.flatten(1).gather(1, index).masked_fill(~possible, EOS)
        kept_parts = [part.flatten(1).gather(1, index) for part in parts]
        for part, scores in zip(self._every(), kept_parts, strict=True):
            part.keep(source, chosen, scores)
        history = take(self._open.tokens, source)
        history[:, :, self._length] = chosen
        length = self._length + (chosen != EOS).long()
        kept = TokenBeam(score, torch.stack(kept_parts, dim=-1), history, length)
        ended = kept.where(chosen == EOS)
        self._open = kept.where(chosen != EOS)
        self._ended = self._ended.merged(ended)
        best = ended.score.amax(dim=1, keepdim=True)
        best = best.masked_fill(best == -torch.inf, torch.inf)
        self._ended_of_late = torch.cat((self._ended_of_late[:, 1:], best), dim=1)
        self._length += 1

    def leave(self) -> list[tuple[int, list[Hypothesis]]]:
        """Take out the utterances that are done; return their places in the batch and their hypotheses."""
        done = self._done()
        if not any(done.tolist()):
            return []
        rows = done.nonzero().squeeze(1)
        left = list(zip(self.utterances[rows].tolist(), self._hypotheses(rows), strict=True))
        stay = (~done).nonzero().squeeze(1)
        for part in self._every():
            part.select(stay)
        self._open, self._ended = self._open.select(stay), self._ended.select(stay)
        self._limits, self._ended_of_late = self._limits[stay], self._ended_of_late[stay]
        self.utterances = self.utterances[stay]
        return left

    def _every(self) -> list[Part | CtcPart]:
        parts: list[Part | CtcPart] = [p.part for p in self._others]
        return [*parts, self._ctc] if self._ctc else parts

    def _extensions(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return tokens to extend each open hypothesis by, total scores, and each part: all (B, N, C)."""
        parts = [p.part.score() for p in self._others]
        totals = self._open.score.new_zeros(())
        for p, scores in zip(self._others, parts, strict=True):
            if p.weight:  # a weight of 0 times -inf would be NaN
                totals = torch.add(totals, scores, alpha=p.weight)
        tokens = self._pre_beam(totals) if parts else None
        if tokens is not None:
            parts = [scores.gather(2, tokens) for scores in parts]
            totals = totals.gather(2, tokens)
        if self._ctc:
            scores = self._ctc.score(tokens)
            parts.append(scores)
            if self._config.joint_ctc_weight:
                totals = torch.add(totals, scores, alpha=self._config.joint_ctc_weight)
        if tokens is None:
            tokens = torch.arange(totals.shape[2], device=totals.device).expand_as(totals)
        totals = totals + self._config.length_bonus * (self._length + (tokens != EOS).double())
        at_limit = (self._limits <= self._length)[:, None, None] & (tokens != EOS)
        closed = (self._open.score == -torch.inf).unsqueeze(-1)
        return tokens, totals.masked_fill(at_limit | closed | (tokens == BLANK), -torch.inf), parts

    def _pre_beam(self, totals: Tensor) -> Tensor | None:
        """Return the tokens (B, N, M + 1) that CTC is to score, eos among them; None is all of them."""
        count = self._config.pre_beam
        if not self._config.joint_ctc_weight or not 0 < count < totals.shape[2] - 2:
            return None
        spoken = totals.clone()
        spoken[..., [BLANK, EOS]] = -torch.inf
        best = spoken.topk(count, dim=2).indices
        return torch.cat((best, torch.full_like(best[..., :1], EOS)), dim=2)

    def _done(self) -> Tensor:
        """Return (B,) bool: nothing is open, nothing open can still be among the best, or the end is detected."""
        best_open = self._open.score.amax(dim=1)
        done = best_open == -torch.inf
        if self._bounded:
            reach = best_open + max(self._config.length_bonus, 0.0) * (self._limits - self._length)
            done |= reach <= self._ended.score[:, -1]
        if self._config.end_detection:
            done |= (self._ended_of_late - self._ended.score[:, :1] < END_DROP).all(dim=1)
        return done

    def _hypotheses(self, rows: Tensor) -> list[list[Hypothesis]]:
        """Return the hypotheses that ended, best first, of the utterances at ``rows``."""
        ended = self._ended.select(rows)
        columns = (ended.score, ended.parts, ended.tokens, ended.length)
        utterances = zip(*(column.tolist() for column in columns), strict=True)
        return [
            [
                self._hypothesis(score, parts, tokens[:length], length < limit)
                for score, parts, tokens, length in zip(*hypotheses, strict=True)
                if score > -torch.inf
            ]
            for hypotheses, limit in zip(utterances, self._limits[rows].tolist(), strict=True)
        ]

    def _hypothesis(self, score: float, parts: list[float], tokens: list[int], ended: bool) -> Hypothesis:
        by_name = dict(zip(self._names, parts, strict=True))
        return Hypothesis(
            tokens=tuple(tokens),
            score=score,
            ctc=by_name.get("ctc", 0.0),
            lm=by_name.get("lm", 0.0),
            bias=by_name.get("bias", 0.0),
            attention=by_name.get("attention"),
            times=(),
            confidences=(),
            ended=ended,
        )
