"""Scores along time become labels, timelines and events."""
