"""What everything stands on: errors, redaction, whole files and their checks, object storage, progress."""
