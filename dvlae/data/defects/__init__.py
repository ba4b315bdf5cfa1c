"""Pixels and images that must not decide anything for the rest: how they are found, and what becomes of them."""

from dvlae.data.defects.filling import fill
from dvlae.data.defects.finding import find_defects
from dvlae.data.defects.marks import Defects
from dvlae.data.defects.masks import find_mask
from dvlae.data.defects.scale import FrameScale, measure_scale

__all__ = ["Defects", "FrameScale", "fill", "find_defects", "find_mask", "measure_scale"]
