"""Answers requests over HTTP with a saved classifier."""
