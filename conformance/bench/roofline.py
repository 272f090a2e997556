"""The roofline as one SVG file: each op under the copy's slope and the matrix product's roof, and how close it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from gaugeblock.conformance.bench.ceilings import INT8_OPS, Ceilings
from gaugeblock.conformance.bench.measure import Entry, Shape

WIDTH, HEIGHT = 1240, 640
LEFT, TOP, PLOT_RIGHT, PLOT_BOTTOM = 76, 74, 700, 572
KEY, BAR, BAR_END, KEY_STEP = (
    736,
    992,
    1170,
    26,
)  # the list at the right: its text, its bars from 0 to 1, a line's height
COLOURS = ("#0b6e99", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#a16207", "#0f766e", "#be185d", "#1d4ed8", "#4d7c0f")
GREY, INK, PALE = "#6b7280", "#374151", "#e5e7eb"


@dataclass(frozen=True)
class Point:
    """One shape: operations a byte, the target's and the best other's TFLOP/s and share of the roof above them."""

    number: int
    name: str
    colour: str
    intensity: float
    rate: float | None
    share: float | None
    rival: str
    rival_rate: float | None
    rival_share: float | None


@dataclass(frozen=True)
class Axes:
    """Logarithmic axes, in powers of ten: operations a byte across, TFLOP/s up."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, intensity: float) -> float:
        """Return the horizontal pixel."""
        return LEFT + (math.log10(intensity) - self.x[0]) / (self.x[1] - self.x[0]) * (PLOT_RIGHT - LEFT)

    def py(self, rate: float) -> float:
        """Return the vertical pixel."""
        return PLOT_BOTTOM - (math.log10(rate) - self.y[0]) / (self.y[1] - self.y[0]) * (PLOT_BOTTOM - TOP)


def roofline(card: str, ceilings: Ceilings, shapes: Sequence[Shape]) -> str:
    """Return the plot; filled dots and bars are the target's, rings and ticks the best of the others."""
    ops = list(dict.fromkeys(shape.op for shape in shapes))
    points = [
        _point(number, shape, COLOURS[ops.index(shape.op) % len(COLOURS)], ceilings)
        for number, shape in enumerate(shapes, 1)
    ]
    copy, gemm = ceilings.copy / 1e6, ceilings.gemm / 1e6  # TB/s, TFLOP/s
    int8 = gemm * ceilings.int8_factor(INT8_OPS[0]) if set(ops) & set(INT8_OPS) else None
    rates = [gemm / 10, int8 or gemm, *(rate for p in points for rate in (p.rate, p.rival_rate) if rate)]
    intensities = [gemm / copy, *(p.intensity for p in points)]
    axes = Axes(
        (math.log10(min(intensities) / 2.5), math.log10(max(intensities) * 2.5)),
        (math.log10(min(rates) / 2), math.log10(max(rates) * 2)),
    )
    parts = [*_frame(card), *_grid(axes), *_roofs(axes, copy, gemm, int8)]
    for point in points:
        parts += [*_dots(axes, point), *_line(point)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _point(number: int, shape: Shape, colour: str, ceilings: Ceilings) -> Point:
    factor = ceilings.int8_factor(shape.op)
    rival = shape.best_rival()
    ours = shape.entries[0]
    return Point(
        number,
        f"{shape.op} {shape.label}",
        colour,
        shape.flops / shape.bytes_moved,
        _rate(shape, ours),
        _share(ours, factor),
        rival.name if rival else "",
        _rate(shape, rival) if rival else None,
        _share(rival, factor) if rival else None,
    )


def _rate(shape: Shape, entry: Entry) -> float | None:
    times = entry.best()
    return None if times is None or entry.outcome != "measured" else shape.flops / times.median / 1e6


def _share(entry: Entry, factor: float) -> float | None:
    if entry.outcome != "measured" or entry.r is None or entry.gemm is None:
        return None
    return max(entry.r, entry.gemm / factor)


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _frame(card: str) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12" fill="#1f2937">'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    yield _text(LEFT, 28, f"Fused kernels on one {card}", 'font-size="17" font-weight="600"')
    yield _text(LEFT, 48, "filled: the target; ring: the best of eager, torch.compile and the peers", f'fill="{GREY}"')
    yield _text((LEFT + PLOT_RIGHT) / 2, HEIGHT - 22, "operations a byte (modelled)", 'text-anchor="middle"')
    middle = (TOP + PLOT_BOTTOM) / 2
    yield _text(22, middle, "TFLOP/s", f'text-anchor="middle" transform="rotate(-90 22 {middle})"')
    yield _text(BAR, 48, "share of the roof; tick: the best other", f'fill="{GREY}" font-size="11"')
    for share in (0.0, 0.5, 1.0):
        x = BAR + share * (BAR_END - BAR)
        yield _text(x, TOP - 8, f"{share:g}", f'text-anchor="middle" fill="{GREY}" font-size="11"')


def _grid(axes: Axes) -> Iterator[str]:
    for power in range(math.ceil(axes.x[0]), math.floor(axes.x[1]) + 1):
        x = axes.px(10.0**power)
        yield _stroke(x, TOP, x, PLOT_BOTTOM, f'stroke="{PALE}"')
        yield _text(x, PLOT_BOTTOM + 20, f"{10.0**power:g}", f'text-anchor="middle" fill="{GREY}"')
    for power in range(math.ceil(axes.y[0]), math.floor(axes.y[1]) + 1):
        y = axes.py(10.0**power)
        yield _stroke(LEFT, y, PLOT_RIGHT, y, f'stroke="{PALE}"')
        yield _text(LEFT - 10, y + 4, f"{10.0**power:g}", f'text-anchor="end" fill="{GREY}"')
    yield f'<path d="M{LEFT} {TOP}V{PLOT_BOTTOM}H{PLOT_RIGHT}" fill="none" stroke="{GREY}"/>'


def _roofs(axes: Axes, copy: float, gemm: float, int8: float | None) -> Iterator[str]:
    line = f'stroke="{INK}" stroke-width="1.6"'
    right = 10.0 ** axes.x[1]
    start = max(10.0 ** axes.x[0], 10.0 ** axes.y[0] / copy)
    top = int8 or gemm
    yield _stroke(axes.px(start), axes.py(start * copy), axes.px(top / copy), axes.py(top), line)
    for roof, name in ((gemm, "bf16 matrix product"), (int8, "int8 at twice the bf16 rate:")):
        if roof is not None:
            yield _stroke(axes.px(roof / copy), axes.py(roof), axes.px(right), axes.py(roof), line)
            style = f'text-anchor="end" font-size="11" fill="{INK}"'
            yield _text(PLOT_RIGHT - 4, axes.py(roof) - 7, f"{name} {roof:.0f} TFLOP/s", style)
    at = math.sqrt(start * gemm / copy)
    x, y = axes.px(at), axes.py(at * copy)
    slope = math.degrees(math.atan2(axes.py(10 * at * copy) - y, axes.px(10 * at) - x))
    style = f'transform="rotate({slope:.1f} {x:.1f} {y:.1f})" text-anchor="middle" font-size="11" fill="{INK}"'
    yield _text(x, y - 8, f"device copy {copy:.2f} TB/s", style)


def _dots(axes: Axes, point: Point) -> Iterator[str]:
    x = axes.px(point.intensity)
    if point.rival_rate is not None:
        ring = f'fill="none" stroke="{point.colour}" stroke-width="1.8"'
        yield _circle(x, axes.py(point.rival_rate), 7.5, ring, f"{point.name}: {point.rival} {point.rival_rate:.3g}")
    if point.rate is not None:
        yield _circle(x, axes.py(point.rate), 5, f'fill="{point.colour}"', f"{point.name}: {point.rate:.3g}")
        style = f'font-size="10" fill="{point.colour}"'
        side = (10, -3) if point.number % 2 else (-10, 10)  # neighbours of one intensity: numbers at either side
        yield _text(x + side[0], axes.py(point.rate) + side[1], str(point.number), style + _anchor(side[0]))


def _anchor(side: int) -> str:
    return ' text-anchor="end"' if side < 0 else ""


def _circle(x: float, y: float, radius: float, paint: str, tip: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {paint}><title>{escape(tip)} TFLOP/s</title></circle>'


def _line(point: Point) -> Iterator[str]:
    y = TOP + 14 + KEY_STEP * (point.number - 1)
    small = 'font-size="11"'
    yield _text(KEY, y, str(point.number), f'{small} font-weight="600" fill="{point.colour}"')
    yield _text(KEY + 20, y, point.name, small)
    yield f'<rect x="{BAR}" y="{y - 9}" width="{BAR_END - BAR}" height="10" fill="#f3f4f6"/>'
    if point.share is not None:
        width = min(point.share, 1.0) * (BAR_END - BAR)
        yield f'<rect x="{BAR}" y="{y - 9}" width="{width:.1f}" height="10" fill="{point.colour}"/>'
        yield _text(BAR_END + 8, y, f"{point.share:.3f}", small)
    if point.rival_share is not None:
        x = BAR + min(point.rival_share, 1.0) * (BAR_END - BAR)
        yield _stroke(x, y - 12, x, y + 4, 'stroke="#111827" stroke-width="2"')
