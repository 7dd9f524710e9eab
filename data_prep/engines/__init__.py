"""Where the heavy work on rows and pictures is done: in this process and its children, or on a cluster."""
