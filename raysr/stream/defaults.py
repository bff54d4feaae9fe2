"""How a stream is cut unless told otherwise, for sessions and for files recognised as a stream would be."""

CHUNK_SIZE = 12
"""Encoder frames recognised at a time."""
LEFT_CHUNKS = 6
"""Chunks of the past that they attend to: a longer past than training saw costs words."""
LOOKAHEAD = 4
"""Encoder frames beyond them that they are computed with; models that could not make use of them do without."""
