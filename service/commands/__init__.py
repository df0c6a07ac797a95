"""What `python -m service` does beside serving and scoring tables: each command is a module."""
