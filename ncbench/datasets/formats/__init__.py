"""File formats of the source data sets: strict readers, and writers where an official layout has to be produced."""
