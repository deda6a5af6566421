"""What runs in a process of its own: a module for each library, which makes its dataset and opens it as a feed.

A module has `open_feed(task)`, a context manager that gives a `bench.peers.feed.Feed`, and, where its library reads
files of its own, `write_dataset(task, folder)`. It runs in its library's environment: besides that library it may
import what the standard library has, NumPy, torch, and the modules of `bench.peers` that say so.
"""
