"""Where a model errs: pixels labelled by what is around them, and scored label by label."""
