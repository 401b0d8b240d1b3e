"""Empty: what is asked of it fails, by name."""
