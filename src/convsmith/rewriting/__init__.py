"""Plans carried out on a copy of a model: blocks put in, units moved, weights carried, shapes and costs proved."""
