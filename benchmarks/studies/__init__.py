"""Measurements that are too long, or need too much, for `fastssl bench`: each prints its table.

`python -m fastssl.benchmarks.studies.NAME --help` says what one needs.
"""
