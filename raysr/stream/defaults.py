"""How a stream is cut unless told otherwise, for sessions and for files recognised as a stream would be."""

CHUNK_SIZE = 16
"""Encoder frames recognised at a time."""
LEFT_CHUNKS = 4
"""Chunks of the past that they attend to: a longer past than training saw costs words."""
