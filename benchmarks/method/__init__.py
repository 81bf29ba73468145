"""Parts of the method against the usual way of computing the same numbers; what fits a card."""
