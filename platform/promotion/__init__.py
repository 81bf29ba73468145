"""The way of a checkpoint to champion: candidates, gates, alias requests, history, garbage."""
