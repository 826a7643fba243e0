"""What stands in a graph: stages, units that repeat, pairs that can be merged, convolutions that can be edited."""
