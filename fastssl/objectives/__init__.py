"""The terms of the papers' objectives, one a file, each a function of logits and features."""
