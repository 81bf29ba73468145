"""Paths of the storage, locks, YAML, URIs, the terminal, synchronisation with buckets."""
