"""What fleetdrv costs beside its peers: `python -m tests.bench`. Not a test; test_bench.py keeps it from rotting."""
