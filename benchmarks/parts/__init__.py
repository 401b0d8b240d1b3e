"""The parts of benchmarks/miniature.py, a file each: each measures one aim and returns a `Part`."""
