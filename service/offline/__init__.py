"""Scoring of tables in files, without a server, by the same detectors: `python -m service score`.

A table is read in batches, each batch becomes a matrix, its scores stand beside the columns that are kept, and the
file that holds them appears under its name only when it is whole.
"""
