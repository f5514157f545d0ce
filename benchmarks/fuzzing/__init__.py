"""Parts of the fuzzer, `benchmarks/fuzz.py`."""
