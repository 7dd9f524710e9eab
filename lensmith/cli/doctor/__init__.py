"""What this machine has and lacks. Joins what the rooms know of it; imports no torch itself."""
