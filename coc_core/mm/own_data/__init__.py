"""Reads a user's data and writes the config of a training on it; what differs between tasks is in their plugins."""
