"""The quality of service that a request gets: the tiers that its band prefers, and the quality it asks for at least."""

from __future__ import annotations

from gaugeblock.reference.router import refusals
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.demand import Demands
from gaugeblock.reference.router.journey import Journey
from gaugeblock.reference.router.quality import QUALITIES, reaches
from gaugeblock.reference.router.registry import Registry
from gaugeblock.reference.router.rules import Route


class Service:
    """Completes routes by what the configuration says of bands, and by what requests say of quality."""

    def __init__(self, config: RouterConfig, registry: Registry) -> None:
        self._registry = registry
        self._demands = Demands(config)
        self._tiers = {config.bands.index(band): tiers for band, tiers in config.band_tiers.items()}
        self._header = config.quality_header.lower().encode()
        self._header_name = config.quality_header

    def admit(self, journey: Journey) -> bool:
        """Give the journey's routes their tiers and floor; False if no worker will ever do, and the client is told."""
        route, graded = journey.route, self._registry.graded
        if not (self._tiers or graded or route.floor):
            return True
        fields = journey.request.head.fields
        try:
            said = self._floor(fields.get(self._header)) if graded else None
            journey.route = route = self._complete(route, fields, said)
        except ValueError as error:
            refusals.bad_demand(journey, str(error))
            return False
        plain, model = route.otherwise or route, journey.reading.view.model
        if plain.floor is None or not self._registry.knows(model, plain.pool):
            return True
        have = self._registry.qualities(model, plain.pool)
        if any(reaches(quality, plain.floor) for quality in have):
            return True
        refusals.below_floor(journey, plain.floor, have)
        return False

    def _complete(self, route: Route, fields: dict[bytes, bytes], floor: str | None) -> Route:
        tiers = route.tiers
        if tiers is None and self._tiers:
            tiers = self._tiers.get(self._demands.band(route, fields))
        otherwise = route.otherwise and self._complete(route.otherwise, fields, floor)
        return route._replace(tiers=tiers, floor=route.floor or floor, otherwise=otherwise)

    def _floor(self, value: bytes | None) -> str | None:
        if value is None:
            return None
        said = value.strip().lower().decode("latin-1")
        if said not in QUALITIES:
            raise ValueError(f"{self._header_name} must be one of {', '.join(QUALITIES)}; got {said[:32]!r}")
        return said
