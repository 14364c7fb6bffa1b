"""Hands drawn by code, for the demo and the tests: `hand` draws one, `sample` whole images and data sets.

Colour alone does not find the nails: a test fits a colour regression and requires that it fails.
"""

from nailseg.data.synthetic.sample import draw_hand, write_sample

__all__ = ["draw_hand", "write_sample"]
