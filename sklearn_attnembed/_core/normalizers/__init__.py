"""Normalisers: log Z of queries against keys."""
