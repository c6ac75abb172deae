"""What surrounds a run: git, packages, hardware, the source that it reaches, trackers, what dead processes left."""
