"""Images in, views out: sources, label splits, view policies, two streams of images.

A leaf of the package: it knows nothing of networks, objectives or training.
"""
