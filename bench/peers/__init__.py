"""Measures our loaders and other libraries on the same samples, in one run."""
