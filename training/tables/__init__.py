"""Users' tables: files are read in batches, their columns understood, and their rows made a matrix."""
