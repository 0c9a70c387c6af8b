"""What a classifier is handed on as."""
