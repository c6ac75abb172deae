"""Numbers from tables and texts: intervals, their estimands and wording, pooling over records, occurrences."""
