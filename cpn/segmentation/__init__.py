"""DeepLab, trained on pseudo labels."""
