"""What to change: planners that answer with edits and refusals as data."""
