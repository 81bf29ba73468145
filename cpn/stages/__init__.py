"""The stages after a CAM run, each from files to files."""
