"""One reader per source format; each yields canonical frames."""
