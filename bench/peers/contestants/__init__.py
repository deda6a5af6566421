"""What runs in a process of its own: a module for each library, which makes its dataset and opens it as a feed.

A module has `open_feed(task, stack)`, which gives a `bench.peers.child.Feed` and leaves what is to be closed to the
`ExitStack`, and, where its library reads files of its own, `write_dataset(task, folder)`. It runs in its library's
environment: besides that library it may import the standard library, NumPy, torch, and the modules of `bench.peers`
that run in any environment.
"""
