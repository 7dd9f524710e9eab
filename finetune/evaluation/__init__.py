"""Traces in, judged: metrics, intervals, the report and its page. Imports no torch."""
