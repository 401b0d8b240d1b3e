"""Formats of data sets: each read as a list of items, and each written from one."""

from urae.data.formats.convert import FORMS, convert
from urae.data.formats.items import Item, list_items, other_files

__all__ = ["FORMS", "Item", "convert", "list_items", "other_files"]
