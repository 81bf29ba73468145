"""Training loops, optimizers, and the training of the CAM network."""
