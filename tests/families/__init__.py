"""One suite for every family: a family without a tiny checkpoint in it fails."""
