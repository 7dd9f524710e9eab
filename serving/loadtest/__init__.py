"""How fast a release answers under load, measured on the rows of its own exam."""
