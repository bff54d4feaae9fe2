"""Filters: which pseudo-labels to believe.

Each is a pure function over the predictions it is given, whatever their order: filters run again without labelling,
and :mod:`raysr.ipl.filters.report` runs them on labels whose truth is known. A reason names the number that decided.
"""
