"""Images of a run: curves, panels, maps drawn over images."""
