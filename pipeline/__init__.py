"""landcover: satellite scenes to land-cover maps."""
