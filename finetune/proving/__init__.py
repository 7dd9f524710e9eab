"""The merge proof's parts: weights, files and logits, each computed anew and not by the code that merged."""
