"""One word per thing, and nothing too large to read: classes, modules, files and rooms."""

import ast
from collections import Counter

import pytest
from source import FILES, MODULES, PACKAGES, SRC, exports, line_count, place, tree

MOST_LINES = 470
"""Of a file."""

MOST_LINES_OF_A_ROOM = 2900


def test_no_two_classes_have_one_name():
    places: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(place(file))
    assert len(places) > 300
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_module_has_the_name_of_what_its_package_exports(package):
    """Once imported, the module would stand in the export's place."""
    for name, (module, _) in exports(package).items():
        assert module == package or f"{package}.{name}" not in MODULES, f"{package}.{name}"


def test_files_fit_in_the_head():
    assert {place(file): line_count(file) for file in FILES if line_count(file) > MOST_LINES} == {}


def test_rooms_are_of_a_size():
    """A family's folder and a group of commands are rooms of their own: how many there are says nothing about how well
    one is kept."""
    lines = Counter()
    for file in FILES:
        parts = file.relative_to(SRC / "urae").parts
        is_apart = parts[0] in ("families", "cli") and len(parts) > 2
        lines["/".join(parts[:2]) if is_apart else parts[0]] += line_count(file)
    assert {room: num for room, num in lines.items() if num > MOST_LINES_OF_A_ROOM} == {}
