"""Hands and nails drawn by code: the data of the demo, the examples and the tests.

`sample` writes a data set, `pose` places the joints of a hand, `render` paints it, and `scene` draws what
surrounds it: background, objects with the colours of skin and polish, light and camera. The drawings are made
so that colour alone does not find the nails; a test fits a colour regression and requires that it fails.
"""

from nailseg.data.synthetic.sample import draw_hand, write_sample

__all__ = ["draw_hand", "write_sample"]
