"""One reader a format of labelled data."""
