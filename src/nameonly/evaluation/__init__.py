"""Stage: results against ground truth. The only place that sees true labels.

Nothing that labels, adapts or decides may import this package. Metrics are plain functions of
``y_true`` and ``labels``: ``_score`` is better when higher, ``_error`` when lower.
"""
