"""What an adapter costs: training steps, saved activations, adapter bytes, merged inference.

Run with `python -m benchmarks` (or `make bench`); see benchmarks/README.md.
"""
