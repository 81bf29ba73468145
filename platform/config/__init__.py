"""A sweep's specification: its sections, its checks, the table section."""
