"""The tables of tests/test_bad_input.py: what people really produce, by kind."""
