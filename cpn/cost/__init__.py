"""What a configuration costs: operations, memory of training and inference, time of a step."""
