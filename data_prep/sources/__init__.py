"""The formats that labelled rows are handed over in: one reader a file."""
