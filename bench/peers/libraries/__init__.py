"""The functions that open entries and write their datasets, each in a process of its own.

An opener takes a task and an `ExitStack`, to which it leaves what is to be closed, and gives a
`bench.peers.child.Feed`. A writer takes a task and the folder to fill. Both run in the entry's environment, where they
may import the standard library, NumPy, torch, the library itself, and the modules of `bench.peers` that run in any
environment; those of `own` may import this project. What not all entries of a file use is imported in the function
that needs it: libraries count as an entry's memory.
"""
