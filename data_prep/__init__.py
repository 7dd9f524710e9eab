"""Labelled data in, a dataset artifact and a held-out artifact out. Imports no torch."""
