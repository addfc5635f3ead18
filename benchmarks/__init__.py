"""Speed and memory against reference-style code, side by side: `python -m benchmarks`.

Contestants take turns within one run and figures are medians. A target is reported as met or not,
never asserted: on a shared machine trust the ratios, and read the load average beside them.
"""
