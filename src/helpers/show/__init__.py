"""What a reader sees in notebooks and pages: the chart theme, charts, widgets, and the numbers of a notebook."""
