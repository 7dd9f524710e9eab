"""Reading the files in a zip or tar that someone handed over, without ever unpacking it to a disk."""
