"""The benchmark: a plan of runs, a folder that resumes, a table.

Nothing here lets a method see a label: ``fitting`` knows no truth, ``draws`` turns truth into given
labels before, ``scoring`` compares with it afterwards.
"""
