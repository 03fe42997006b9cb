"""Miniature data sets with exactly known truth, rendered analytically and written in official layouts."""
