"""The configured filters as one: predictions in, a decision for each out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raysr.config import Spec
from raysr.ipl.context import CycleContext
from raysr.ipl.decisions import Decision, Rule, decide
from raysr.ipl.filters.hash import filter_hash
from raysr.ipl.plugins import FILTERS
from raysr.ipl.predictions import Prediction


@dataclass(frozen=True)
class FilterChain:
    """Filters in their order, each by its name: its kind, numbered where that comes again."""

    rules: Mapping[str, Rule]
    hash: str

    @classmethod
    def build(cls, specs: Sequence[Spec], context: CycleContext) -> "FilterChain":
        """Build the filters of a cycle."""
        rules: dict[str, Rule] = {}
        for spec in specs:
            again = sum(name.partition(" ")[0] == spec.kind for name in rules)
            rules[f"{spec.kind} {again + 1}" if again else spec.kind] = FILTERS.build(spec, context)
        return cls(rules, filter_hash(specs, context.vote))

    def __call__(self, predictions: Iterable[Prediction]) -> list[Decision]:
        return decide(predictions, self.rules, self.hash)
