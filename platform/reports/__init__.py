"""What a sweep found: rankings, summaries, plots, the HTML report."""
