"""Benchmark data sets: a description of each, and readers of its files as they are published.

Nothing is downloaded. True labels leave this package beside the images, so nothing that labels,
adapts or decides may import it.
"""
