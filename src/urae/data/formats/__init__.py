"""Formats of data sets: each read as a list of images, and each written from one."""

from urae.data.formats.converting import FORMS, convert
from urae.data.formats.images import ListedImage
from urae.data.formats.listing import list_images, passed_over

__all__ = ["FORMS", "ListedImage", "convert", "list_images", "passed_over"]
