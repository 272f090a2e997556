"""The page pool: which pages are free, and how many sequences hold each of the others."""

from __future__ import annotations


class KVError(Exception):
    """A rule of the KV cache was broken: a double free, a foreign page, counters that do not agree."""


class PagePool:
    """Pages ``0 .. total - 1``. A page is *free*, *held* (refcount > 0) or *idle* (refcount 0, kept for its content).

    Whether a page whose refcount fell to zero goes idle or free is the manager's choice: :meth:`release` only counts,
    :meth:`reclaim` frees.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.refs = [0] * total
        self.held = 0
        self._free = list(range(total - 1, -1, -1))
        self._is_free = [True] * total

    @property
    def free(self) -> int:
        """How many pages are free."""
        return len(self._free)

    @property
    def idle(self) -> int:
        """How many pages are kept with nobody holding them."""
        return self.total - len(self._free) - self.held

    def is_free(self, page: int) -> bool:
        """Tell whether a page is on the free list."""
        return self._is_free[page]

    def allocate(self, count: int) -> list[int]:
        """Take ``count`` free pages, each with refcount 1.

        Raises:
            KVError: fewer are free; then none is taken.
        """
        if count > len(self._free):
            raise KVError(f"{count} pages wanted, {len(self._free)} free")
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self.refs[page] = 1
            self._is_free[page] = False
        self.held += count
        return pages

    def retain(self, page: int) -> None:
        """Add a holder to a held or idle page.

        Raises:
            KVError: the page is free.
        """
        if self._is_free[page]:
            raise KVError(f"page {page} is free and cannot be retained")
        self.held += self.refs[page] == 0
        self.refs[page] += 1

    def release(self, page: int) -> int:
        """Drop one holder and return how many are left.

        Raises:
            KVError: nobody holds the page (a double free).
        """
        if self.refs[page] == 0:
            raise KVError(f"double free of page {page}")
        self.refs[page] -= 1
        self.held -= self.refs[page] == 0
        return self.refs[page]

    def reclaim(self, page: int) -> None:
        """Put an idle page on the free list.

        Raises:
            KVError: somebody holds it, or it is free already.
        """
        if self.refs[page] or self._is_free[page]:
            state = "free already" if self._is_free[page] else f"held by {self.refs[page]}"
            raise KVError(f"page {page} cannot be reclaimed: {state}")
        self._is_free[page] = True
        self._free.append(page)
