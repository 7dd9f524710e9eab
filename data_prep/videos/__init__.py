"""Videos that rows name, taken as frames: sampled once, in workers that may die, and kept as pictures."""
