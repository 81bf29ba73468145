"""The Optuna study and everything that decides which trial runs next, stops early or wins."""
