"""What starts a training elsewhere: scripts and manifests, written and never run by Lensmith. No torch."""
