"""Axes, cameras, normals from depth, flow and octahedral coding: pure functions without I/O."""
