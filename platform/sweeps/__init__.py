"""The kinds of sweep, search and table, from first trial to report."""
