"""Comparison of sweeps: which hyperparameters mattered where."""
