"""The network: a size is a config, not a file."""
