-- Beside `studies`, which the server makes itself: MLflow's runs, and its users and their permissions.
CREATE DATABASE mlflow;
CREATE DATABASE auth;
