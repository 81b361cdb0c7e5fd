"""Images in, views out: sources, label splits, two streams of views.

A leaf of the package: it knows nothing of networks, objectives or training.
"""
