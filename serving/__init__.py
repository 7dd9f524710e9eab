"""A model in; a profile, a running engine, traces over HTTP, proofs, releases and the registry out."""
