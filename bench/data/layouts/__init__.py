"""The forms in which data sets lie in folders: one file a layout (see `bench.protocols.Layout`)."""
