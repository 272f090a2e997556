"""One step's work as tensors: which tokens to compute, where their KV goes, and which KV each of them sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """A run of consecutive tokens of one sequence: ``tokens`` from absolute position ``start``.

    ``pages`` are the sequence's without its first ``behind``, which lie before the ``window`` and are gone.
    """

    tokens: Sequence[int]
    start: int
    pages: Sequence[int]
    logit_offsets: Sequence[int] = ()  # offsets in ``tokens`` whose logits are wanted
    behind: int = 0
    window: int | None = None  # positions that each token sees up to its own, None: all; the same for a whole batch

    @property
    def end(self) -> int:
        """One past the last absolute position."""
        return self.start + len(self.tokens)

    def first_page(self, page_size: int) -> int:
        """Index, among all pages of the sequence, of the first page that a token of the span sees."""
        return first_visible(self.start, self.window) // page_size

    def visible_pages(self, page_size: int) -> Sequence[int]:
        """The pages from :meth:`first_page` to the last token's."""
        first, last = self.first_page(page_size), (self.end - 1) // page_size
        return self.pages[first - self.behind : last - self.behind + 1]


@dataclass(frozen=True)
class ChunkView:
    """What a chunk of more than one token attends to."""

    rows: slice  # its rows in the batch
    table: Tensor  # [1, pages] int64
    mask: Tensor  # [tokens, pages * page_size] bool: True where a token sees a position of the table

    def to(self, move: Callable[[Tensor], Tensor]) -> ChunkView:
        """Return the same view with its tensors moved."""
        return replace(self, table=move(self.table), mask=move(self.mask))


@dataclass(frozen=True)
class ForwardBatch:
    """A ragged batch: single tokens (decodes) first, then chunks. All index tensors are int64."""

    input_ids: Tensor  # [tokens]
    positions: Tensor  # [tokens], absolute
    slots: Tensor  # [tokens], where each token's KV is written
    singles: int  # how many rows are single tokens
    tables: Tensor  # [singles, pages], padded with the pad page
    mask: Tensor  # [singles, 1, 1, pages * page_size] bool
    chunks: tuple[ChunkView, ...]
    logit_rows: Tensor  # [rows whose logits are wanted]

    def to(self, move: Callable[[Tensor], Tensor]) -> ForwardBatch:
        """Return the same batch with all that attention reads of it moved; without singles there is none of theirs."""
        tables, mask = (move(self.tables), move(self.mask)) if self.singles else (self.tables, self.mask)
        chunks = tuple(chunk.to(move) for chunk in self.chunks)
        return replace(self, slots=move(self.slots), tables=tables, mask=mask, chunks=chunks)


def build_batch(spans: Sequence[Span], page_size: int, pad_page: int) -> ForwardBatch:
    """Lay out ``spans`` as one batch. Logit rows follow the order of ``spans`` and, within one, of its offsets."""
    order = sorted(range(len(spans)), key=lambda i: len(spans[i].tokens) > 1)
    first_row: dict[int, int] = {}
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for i in order:
        span = spans[i]
        first_row[i] = len(ids)
        ids += span.tokens
        for position in range(span.start, span.end):
            positions.append(position)
            slots.append(span.pages[position // page_size - span.behind] * page_size + position % page_size)
    singles = [spans[i] for i in order if len(spans[i].tokens) == 1]
    tables, mask = _single_views(singles, page_size, pad_page)
    return ForwardBatch(
        input_ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        singles=len(singles),
        tables=tables,
        mask=mask,
        chunks=tuple(_chunk_view(spans[i], first_row[i], page_size) for i in order[len(singles) :]),
        logit_rows=torch.tensor(
            [first_row[i] + offset for i, span in enumerate(spans) for offset in span.logit_offsets], dtype=torch.int64
        ),
    )


def first_visible(position: int, window: int | None) -> int:
    """Return the first position that a token at ``position`` sees."""
    return 0 if window is None else max(0, position - window + 1)


def sliding_pages(window: int, chunk: int, page_size: int) -> int:
    """Return how many pages hold all that a chunk of ``chunk`` tokens computes and sees, wherever it starts."""
    return -(-(window + chunk - 2) // page_size) + 1  # window - 1 + chunk positions, the first at any page offset


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Tell which key positions each query position sees; the two broadcast. A query always sees itself."""
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)


def _single_views(spans: Sequence[Span], page_size: int, pad_page: int) -> tuple[Tensor, Tensor]:
    pages = [span.visible_pages(page_size) for span in spans]
    width = max((len(p) for p in pages), default=0)
    tables = torch.tensor([[*p, *[pad_page] * (width - len(p))] for p in pages], dtype=torch.int64)
    starts = torch.tensor([span.start for span in spans], dtype=torch.int64)
    firsts = torch.tensor([span.first_page(page_size) * page_size for span in spans], dtype=torch.int64)
    keys = firsts[:, None] + torch.arange(width * page_size)
    mask = visible(starts[:, None], keys, spans[0].window if spans else None)  # [singles, positions]
    return tables, mask[:, None, None, :]


def _chunk_view(span: Span, row: int, page_size: int) -> ChunkView:
    pages = span.visible_pages(page_size)
    first = span.first_page(page_size) * page_size
    keys = torch.arange(first, first + len(pages) * page_size)
    return ChunkView(
        rows=slice(row, row + len(span.tokens)),
        table=torch.tensor([pages]),
        mask=visible(torch.arange(span.start, span.end)[:, None], keys, span.window),
    )
