"""How steady normals are from frame to frame, measured so that a constant, a blur or silence cannot win."""
