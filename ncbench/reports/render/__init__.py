"""Styles for the neutral table: Markdown, LaTeX, HTML, tidy rows, and the terminal."""
