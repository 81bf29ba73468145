"""Data sets as others publish them: reading, checking, converting, downloading and packing them."""
