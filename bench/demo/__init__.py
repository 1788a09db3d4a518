"""The embedded demo: a tiny language model and how it was made."""
