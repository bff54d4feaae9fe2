"""Streaming recognition: one client's audio in, events out; pure Python and torch, no Ray, no sockets."""
