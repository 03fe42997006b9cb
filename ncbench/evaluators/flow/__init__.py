"""Where the motion between two frames comes from: files, geometry, or an estimate from the pictures."""
