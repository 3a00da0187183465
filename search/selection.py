"""What a request's filter lets through, its facets, and how it is going to be searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.conditions import AllOf, Condition, FilterError, compare
from indexer.facets import Facet, facet
from indexer.filter_text import written
from indexer.filters import leaves, parse
from indexer.ingest import GENERATED
from indexer.live import Passing, TargetView
from indexer.vectors.index import Allowed
from search import messages as m
from search.messages import BadRequest

DRAWN_BY_NONE = compare(GENERATED, "!=", True)


@dataclass(frozen=True)
class Selection:
    view: TargetView
    condition: Condition | None
    passing: Passing | None
    """None: all rows do."""

    @classmethod
    def of(cls, request: m.SearchRequest, view: TargetView) -> Selection:
        """Raises FilterError."""
        condition = None if request.filter == {} else parse(request.filter)
        if not request.generated:
            condition = _without_generated(condition, view)
        return cls(view, condition, None if condition is None else view.passing(condition))

    @property
    def allowed(self) -> Allowed | None:
        return None if self.passing is None else self.passing.allowed

    def facets(self, asked: Sequence[str | dict[str, list[str | int | float]]]) -> dict[str, m.Facet]:
        """Over the living rows that pass. Raises FilterError, BadRequest."""
        attributes = self.view.attributes
        everything = [np.ones(len(part.ids), dtype=bool) for part in attributes.parts]
        masks = everything if self.passing is None else self.passing.masks
        living = list(attributes.without(masks, self.view.dead))
        wanted = [pair for one in asked for pair in ([(one, [])] if isinstance(one, str) else one.items())]
        twice = next((name for name, n in Counter(name for name, _ in wanted).items() if n > 1), None)
        if twice is not None or len(wanted) > m.MAX_FACETS:
            said = (
                f"{twice!r} twice"
                if twice is not None
                else f"{len(wanted)} attributes, {m.MAX_FACETS} at most"
            )
            raise BadRequest(f"facets names {said}", "facets")
        out = {}
        for name, edges in wanted:
            try:
                out[name] = facet_message(facet(name, edges, attributes, living))
            except FilterError as error:
                raise BadRequest(str(error), "facets") from error
        return out

    def explain(self, k: int) -> m.Explain:
        plan = self.view.vectors.plan(self.allowed, k)
        return m.Explain(
            filter=None if self.condition is None else written(self.condition),
            plan=plan.kind,
            rows=plan.rows,
            allowed=plan.allowed,
        )


def _without_generated(condition: Condition | None, view: TargetView) -> Condition | None:
    """And not drawn by a generator, where some are and the filter does not speak of it itself."""
    if view.attributes.types.get(GENERATED) != "bool":
        return condition
    if condition is None:
        return DRAWN_BY_NONE
    if any(leaf.name == GENERATED for leaf in leaves(condition)):
        return condition
    return AllOf((condition, DRAWN_BY_NONE))


def facet_message(one: Facet) -> m.Facet:
    if one.ranges:
        return m.Facet(
            missing=one.missing, ranges=[m.FacetRange(r.start, r.end, r.count) for r in one.ranges]
        )
    return m.Facet(
        missing=one.missing,
        values=[m.FacetValue(value, count) for value, count in one.values],
        distinct=one.distinct,
    )
