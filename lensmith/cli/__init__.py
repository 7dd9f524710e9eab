"""The command line: thin commands, lazy imports; the only room that joins the others."""
