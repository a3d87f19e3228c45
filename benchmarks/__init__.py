"""What the speed claims rest on: ratios from one run of ``python -m benchmarks NAME``."""
