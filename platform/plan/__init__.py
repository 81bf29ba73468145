"""The price of a sweep before it starts, and its budget while it runs."""
