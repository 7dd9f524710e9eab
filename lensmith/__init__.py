"""The spine of Lensmith: the recipe, the artifact, the sample and the trace. Imports no torch."""

__version__ = "0.1.0"
