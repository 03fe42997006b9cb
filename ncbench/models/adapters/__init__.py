"""Adapters of learned models, and of any command."""
