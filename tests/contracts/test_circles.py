"""No module depends on itself through others, imports for type checkers included: each can be read to its end."""

from graphlib import CycleError, TopologicalSorter

from source import FILES, PACKAGES, imports, module_of

LATE = {
    # An object that acts: `policy.on(pipe)` runs code that is given the policy. It is looked up when it is called, so
    # that a policy can be made, checked and stored without torch.
    ("urae.resolution.policy", "urae.resolution.schedule"),
}
"""Imports against the order of reading, each for a reason."""


def graph() -> dict[str, set[str]]:
    # A package's `__init__` only hands on what its modules define: what is imported through it counts as theirs.
    return {module_of(file): imports(file) for file in FILES if module_of(file) not in PACKAGES}


def without(edges, left_out):
    return {
        name: {other for other in others if (name, other) not in left_out} for name, others in edges.items()
    }


def circle(edges) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_depends_on_itself():
    assert circle(without(graph(), LATE)) == []


def test_what_is_excepted_is_there():
    for edge in LATE:
        assert circle(without(graph(), LATE - {edge})), f"{edge} closes no circle any more: leave it out"


def test_a_circle_is_found():
    edges = without(graph(), LATE)
    assert "urae.errors" in edges["urae.io.files"]
    assert circle(edges | {"urae.errors": {"urae.io.files"}})
