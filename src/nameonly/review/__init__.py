"""A person corrects a run's labels in a local web page."""
