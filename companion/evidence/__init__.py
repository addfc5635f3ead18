"""What the papers report, our statistics, the claims and their verdicts: tables in, no training.

Nothing here imports torch. Import from the files.
"""
