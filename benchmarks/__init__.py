"""Measurements: the platform and its peers on the same servers, in one run, told as ratios."""
