"""The tree: nodes with values and permissions, and views of it in which a transaction works."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

import attrs

from pvops_xen.xenstore.wire import ABS_PATH_MAX, XsError, refuse

READ: Final = 1
WRITE: Final = 2
OWNER: Final = 4
_LETTERS: Final = {0: "n", READ: "r", WRITE: "w", READ | WRITE: "b"}
_RIGHTS: Final = {letter: rights for rights, letter in _LETTERS.items()}
_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "-/_@")
_NODE_HEADER: Final = 24
_PERMISSION_SIZE: Final = 8


@attrs.frozen
class Permission:
    """What a domain may do: of the first in a node's list, what all others may, for that domain owns the node."""

    rights: int
    domid: int

    @classmethod
    def parse(cls, text: str) -> Permission:
        """The permission of, for example, ``r3``.

        Raises:
            RequestError: the text is none.
        """
        rights, number = _RIGHTS.get(text[:1]), text[1:]
        if rights is None or not number.isascii() or not number.isdigit() or int(number) >= 1 << 32:
            raise refuse(XsError.EINVAL)
        return cls(rights, int(number))

    def __str__(self) -> str:
        """As it goes over the wire."""
        return f"{_LETTERS[self.rights]}{self.domid}"


@attrs.frozen
class Node:
    """A node.

    Attributes:
        permissions: the first is the owner's.
        value: any bytes.
        children: names, in the order in which they were made.
        generation: changes with every change of the node.
    """

    permissions: tuple[Permission, ...]
    value: bytes = b""
    children: tuple[str, ...] = ()
    generation: int = 0

    @property
    def owner(self) -> int:
        """Domain that it belongs to."""
        return self.permissions[0].domid

    @property
    def listing(self) -> bytes:
        """The children's names, each with a NUL."""
        return b"".join(name.encode("latin-1") + b"\0" for name in self.children)

    @property
    def size(self) -> int:
        """Bytes that xenstored keeps of it, which its quota counts."""
        return _NODE_HEADER + _PERMISSION_SIZE * len(self.permissions) + len(self.value) + len(self.listing)

    def rights_of(self, domid: int) -> int:
        """What a domain may do with it: dom0 and the owner everything."""
        if domid in {0, self.owner}:
            return READ | WRITE | OWNER
        named = (each.rights for each in self.permissions[1:] if each.domid == domid)
        return next(named, self.permissions[0].rights)


def parent_of(path: str) -> str:
    """Path of the node above."""
    return path.rpartition("/")[0] or "/"


def name_of(path: str) -> str:
    """Last name of a path."""
    return path.rpartition("/")[2]


def join(path: str, name: str) -> str:
    """Path of a child."""
    return f"{path.rstrip('/')}/{name}"


def is_path(path: str) -> bool:
    """It is the absolute path that a node may have."""
    return (
        path.startswith("/")
        and (path == "/" or not path.endswith("/"))
        and "//" not in path
        and len(path) <= ABS_PATH_MAX
        and _CHARACTERS.issuperset(path)
    )


@attrs.define
class Tree:
    """The nodes that everybody sees, by path.

    Attributes:
        nodes: the nodes; "/" is always there.
        generation: of the last change.
        counts: nodes that each domain owns.
    """

    nodes: dict[str, Node] = attrs.field(factory=lambda: {"/": Node((Permission(0, 0),))})
    generation: int = 0
    counts: dict[int, int] = attrs.field(factory=lambda: {0: 1})

    def get(self, path: str) -> Node | None:
        """A node, if it is there."""
        return self.nodes.get(path)

    def put(self, path: str, node: Node | None) -> None:
        """Change, make or remove (None) a node."""
        old = self.nodes.pop(path, None)
        if old is not None:
            self.counts[old.owner] -= 1
        if node is not None:
            self.generation += 1
            self.nodes[path] = attrs.evolve(node, generation=self.generation)
            self.counts[node.owner] = self.counts.get(node.owner, 0) + 1

    def owned(self, domid: int) -> int:
        """How many nodes a domain owns."""
        return self.counts.get(domid, 0)


@attrs.frozen
class TreeChange:
    """A node that changed.

    Attributes:
        path: its path.
        exact: only watches of this very node are to hear of it: it went because one above it did.
    """

    path: str
    exact: bool = False


def _generation(node: Node | None) -> int | None:
    return None if node is None else node.generation


@attrs.define
class View:
    """The tree as a transaction sees it: its own changes are in it, and what it has looked at is noted.

    Attributes:
        tree: the tree below.
        seen: generation of each node looked at, when first; None for one that was not there.
        changed: nodes changed, None for removed.
        owned_more: nodes that a domain owns beyond those in the tree.
    """

    tree: Tree
    seen: dict[str, int | None] = attrs.field(factory=dict)
    changed: dict[str, Node | None] = attrs.field(factory=dict)
    owned_more: dict[int, int] = attrs.field(factory=dict)

    def get(self, path: str) -> Node | None:
        """A node, if it is there."""
        if path in self.changed:
            return self.changed[path]
        node = self.tree.get(path)
        self.seen.setdefault(path, _generation(node))
        return node

    def put(self, path: str, node: Node | None) -> None:
        """Change, make or remove (None) a node."""
        old = self.get(path)
        for each, step in ((old, -1), (node, 1)):
            if each is not None:
                self.owned_more[each.owner] = self.owned_more.get(each.owner, 0) + step
        self.changed[path] = node

    def owned(self, domid: int) -> int:
        """How many nodes a domain owns."""
        return self.tree.owned(domid) + self.owned_more.get(domid, 0)

    def conflicts(self) -> bool:
        """A node that it has looked at is not what it was."""
        return any(_generation(self.tree.get(path)) != was for path, was in self.seen.items())

    def commit(self) -> None:
        """Make its changes everybody's."""
        for path, node in self.changed.items():
            self.tree.put(path, node)


Nodes = Tree | View


def subtree(nodes: Nodes, path: str) -> Iterator[str]:
    """Paths of all nodes below one, the deepest first."""
    node = nodes.get(path)
    for name in node.children if node else ():
        yield from subtree(nodes, join(path, name))
        yield join(path, name)
