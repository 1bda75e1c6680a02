"""What can be done with the tree, by whom, and how much of it: the rules of xenstored_core.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from pvops_xen.xenstore.tree import (
    OWNER,
    WRITE,
    Node,
    Nodes,
    Permission,
    TreeChange,
    is_path,
    name_of,
    parent_of,
    subtree,
)
from pvops_xen.xenstore.wire import RequestError, XsError, refuse

QUOTA_NODES: Final = 1000  # quota_* of tools/xenstore/xenstored_core.c, as it sets them without options
QUOTA_NODE_SIZE: Final = 2048
QUOTA_PERMISSIONS: Final = 5


@attrs.frozen
class StoreAccess:
    """A domain's hands in the tree, or in a transaction's view of it.

    Attributes:
        nodes: the tree or view.
        domid: the domain; 0 may do everything and has no quota.
        notice: told of every node that changes.
    """

    nodes: Nodes
    domid: int
    notice: Callable[[TreeChange], None]

    def node(self, path: str, rights: int) -> Node:
        """A node that the domain may use so.

        Raises:
            RequestError: it is not there, or not for this domain; below a node that it may not use, all is EACCES.
        """
        if not is_path(path):
            raise refuse(XsError.EINVAL)
        node = self.nodes.get(path)
        if node is not None and node.rights_of(self.domid) & rights == rights:
            return node
        if self._nearest(path).rights_of(self.domid) & rights:
            raise refuse(XsError.ENOENT if node is None else XsError.EACCES)
        raise refuse(XsError.EACCES)

    def _nearest(self, path: str) -> Node:
        """The nearest node above one that is there."""
        while True:
            path = parent_of(path)
            node = self.nodes.get(path)
            if node is not None:
                return node

    def _find(self, path: str, rights: int) -> Node | None:
        """The node, or None if it is not there but might be made."""
        try:
            return self.node(path, rights)
        except RequestError as refused:
            if refused.error is XsError.ENOENT:
                return None
            raise

    def write(self, path: str, value: bytes) -> None:
        """Give a node its value; it is made, with all above it, if it is not there."""
        node = self._find(path, WRITE)
        if node is None:
            self._create(path, value)
        else:
            self._put(path, attrs.evolve(node, value=value))
        self.notice(TreeChange(path))

    def mkdir(self, path: str) -> None:
        """Make a node unless it is there."""
        if self._find(path, WRITE) is None:
            self._create(path, b"")
            self.notice(TreeChange(path))

    def remove(self, path: str) -> None:
        """Remove a node and all below it; that it is not there is fine if the one above it is."""
        node = self._find(path, WRITE)
        if node is None:
            if self.nodes.get(parent_of(path)) is None:
                raise refuse(XsError.ENOENT)
            return
        if path == "/":
            raise refuse(XsError.EINVAL)
        self.notice(TreeChange(path))
        for each in (*subtree(self.nodes, path), path):
            self.notice(TreeChange(each, exact=True))
            self.nodes.put(each, None)
        above = self.nodes.get(parent_of(path))
        assert above is not None
        children = tuple(name for name in above.children if name != name_of(path))
        self.nodes.put(parent_of(path), attrs.evolve(above, children=children))

    def set_permissions(self, path: str, permissions: tuple[Permission, ...]) -> None:
        """Change who may do what: the owner's right, who stays the owner."""
        if self.domid and len(permissions) > QUOTA_PERMISSIONS:
            raise refuse(XsError.ENOSPC)
        node = self.node(path, WRITE | OWNER)
        if self.domid and permissions[0].domid != node.owner:
            raise refuse(XsError.EPERM)
        self._put(path, attrs.evolve(node, permissions=permissions))
        self.notice(TreeChange(path))

    def _put(self, path: str, node: Node) -> None:
        if self.domid and node.size >= QUOTA_NODE_SIZE:
            raise refuse(XsError.ENOSPC)
        self.nodes.put(path, node)

    def _create(self, path: str, value: bytes) -> None:
        """Make a node and those above it that are missing; all or none."""
        missing = [path]
        while self.nodes.get(parent_of(missing[-1])) is None:
            missing.append(parent_of(missing[-1]))
        top = parent_of(missing[-1])
        above = self.nodes.get(top)
        assert above is not None
        permissions = above.permissions
        if self.domid:
            permissions = (attrs.evolve(permissions[0], domid=self.domid), *permissions[1:])
        new = {top: attrs.evolve(above, children=(*above.children, name_of(missing[-1])))}
        for each, below in zip(missing, [None, *missing], strict=False):
            children = () if below is None else (name_of(below),)
            new[each] = Node(permissions, value if each == path else b"", children)
        if self.domid:
            if self.nodes.owned(self.domid) + len(missing) > QUOTA_NODES:
                raise refuse(XsError.ENOSPC)
            if any(node.size >= QUOTA_NODE_SIZE for node in new.values()):
                raise refuse(XsError.ENOSPC)
        for each, node in new.items():
            self.nodes.put(each, node)
