"""How good a classifier is: numbers with their n and interval, and the report."""
