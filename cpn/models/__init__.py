"""The CAM network and its backbones, the losses, pretrained weights and checkpoints."""
