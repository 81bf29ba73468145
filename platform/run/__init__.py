"""One sweep while it runs: its context, the trial loop, the later stages."""
