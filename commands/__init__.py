"""The commands of `cli.py`: options, a configuration, one call, and what it says."""
