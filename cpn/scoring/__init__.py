"""CAM inference and its scores: mIoU over the background score, and values without masks."""
