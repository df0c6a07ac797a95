"""Offline training of anomaly scorers: a table goes in, a folder under ``models/`` comes out."""
