"""Labelled clips: manifests, splits, the cache of decoded frames and the dataset that training reads."""
