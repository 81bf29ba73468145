"""Files that MLflow loads in processes of its own, and what writes one of them with its surroundings."""
