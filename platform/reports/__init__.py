"""What a sweep found: rankings, summaries, plots."""
