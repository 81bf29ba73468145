"""Faults under real sweeps, and damaged files: what is lost, doubled, orphaned or corrupt afterwards."""
