"""The one model interface, the registry behind it, and the controls."""
