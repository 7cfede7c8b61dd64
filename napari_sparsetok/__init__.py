"""Sparse-token segmentation of CT and MR scans, with every pruned token in view."""

__version__ = "0.1.0"
