"""Data sets: reading, preparing and generating them."""
