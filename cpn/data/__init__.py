"""Packed data sets, augmentation, complementary patches and the loader."""
