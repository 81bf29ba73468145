"""Real services on loopback, for tests and benchmarks: a database, an MLflow server, Ray nodes, an S3 endpoint.

Each is a context manager in the file of its name. Ports are free ones, passwords and tokens are made up on the spot,
and nothing remains at the end, not even when the process that started it is killed.
"""
