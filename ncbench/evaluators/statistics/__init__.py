"""How sure a number is: bootstrap intervals, paired comparisons, average ranks."""
