"""Ray: the driver, Ray Tune's searcher, what a trial does on a worker, capacity."""
