"""Numbers from tables and texts: intervals, the estimands that they speak of, pooling over records, occurrences."""
