"""Angular metrics and the run that turns predictions into results."""
