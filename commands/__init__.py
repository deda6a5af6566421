"""The commands of `cli.py`, one a file: options, a configuration, one call, its words."""
