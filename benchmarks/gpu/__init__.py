"""Throughput on one GPU: real sizes with random weights; `--tiny` runs the same code on a CPU."""
