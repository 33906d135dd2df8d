"""Whether it is worth it: planners, selectors and judges measured on labelled data, each by a command."""
