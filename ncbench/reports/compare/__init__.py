"""Two folders of results side by side: what changed, beyond noise or not, and whether that may pass."""
