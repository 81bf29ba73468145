"""Sweeps: overhead, growth, search, the honest winner, prices, the UI."""
