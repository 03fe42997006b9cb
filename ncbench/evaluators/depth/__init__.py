"""Depth of video: one alignment for each clip, then accuracy and steadiness, streaming."""
