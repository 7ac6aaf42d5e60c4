"""What the tools in ``tools/`` are made of: options, how a tool starts, training, testing, resuming."""
