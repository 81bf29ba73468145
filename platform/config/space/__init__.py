"""Search spaces: domains, conditions, and the coordinates that samplers see."""
