"""The parts of benchmarks/ray_serve.py and benchmarks/scaling_simulation.py."""
