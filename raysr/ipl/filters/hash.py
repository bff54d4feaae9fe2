"""A name for what makes labels and filters them, by which decisions say who made them."""

import hashlib
import json
from collections.abc import Sequence

from raysr.config import Spec
from raysr.ipl.voting import Vote


def filter_hash(filters: Sequence[Spec], vote: Vote) -> str:
    """Return a short hash of the filters' kinds and options, in order, and of how labels are made."""
    chain = [spec.model_dump(mode="json") for spec in filters]
    text = json.dumps({"filters": chain, "vote": vote.dump()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
