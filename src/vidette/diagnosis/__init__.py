"""Why is it wrong: what a classifier, its input and its data do, tried against the alternatives."""
