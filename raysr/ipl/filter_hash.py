"""A name for a chain of filters, by which decisions say who made them."""

import hashlib
import json
from collections.abc import Sequence

from raysr.config import Spec


def filter_hash(filters: Sequence[Spec]) -> str:
    """Return a short hash of the filters' kinds and options, in order."""
    text = json.dumps([spec.model_dump(mode="json") for spec in filters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
