"""The report of a run: one self-contained page, written by ``report.html.write_report``."""
