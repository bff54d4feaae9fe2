"""Labelling: selected utterances in, predictions out; in this process, or by an elastic pool of actors on a cluster."""
