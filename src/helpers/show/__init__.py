"""What a reader sees in notebooks and pages: the chart theme, charts, widgets, and tables a notebook is held to."""
