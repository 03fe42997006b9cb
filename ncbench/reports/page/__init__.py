"""The HTML page: one folder that opens from disk, without a network."""

from ncbench.reports.page.write import write_page

__all__ = ["write_page"]
