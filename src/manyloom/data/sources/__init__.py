"""Named data sets: a function each, whose arguments are the keys of `[data]`."""
