"""raysr: pseudo-label, train and serve streaming speech recognition on Ray."""

__version__ = "0.1.0"
