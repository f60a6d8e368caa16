"""The practice fleet: virtual machines with their own kernels, and a real control plane.

`python -m tests.vm --full` runs all of it and writes docs/vm-results.md, `python -m tests.vm FILE...` its rows of
some files; CI runs the story and a slice that the commit's hash chooses.
"""
