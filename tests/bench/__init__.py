"""What fleetdrv costs beside its peers: `python -m tests.bench`. test_bench.py keeps it from rotting."""
