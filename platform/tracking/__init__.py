"""What MLflow gets: the recorder, its spool, the store, the model registry."""
