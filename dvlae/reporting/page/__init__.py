"""The page of results of one denoising: a single HTML file that needs no network and no other files."""

from dvlae.reporting.page.writing import write_page

__all__ = ["write_page"]
