"""Pixels to clips: reading, sampling by time, one preprocessing path; knows no label and no model."""
