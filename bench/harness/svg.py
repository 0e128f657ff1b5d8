"""Plots as SVG, by hand: a few kinds, no dependency. Colours come from the page's CSS (c0, c1, ...)."""
import html
import math

CSS = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#66707f;--grid:#dfe3e9;--back:#fff;--good:#1b7f4b;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7ec;--soft:#98a2b1;--grid:#333a45;--back:#14181e;--good:#57c98c;--bad:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--back)}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}h3{font-size:1rem;margin-bottom:.2rem}
p.note,.meta{color:var(--soft)}table{border-collapse:collapse;width:100%;font-size:14px}
td,th{border-bottom:1px solid var(--grid);padding:.3rem .5rem;text-align:left;vertical-align:top}
td.yes{color:var(--good)}td.no{color:var(--bad);font-weight:600}
svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--ink)}svg .label{fill:var(--soft)}
.grid{stroke:var(--grid)}.line{fill:none;stroke-width:2}.bar{fill:#4a7fc1}.whisker{stroke:var(--ink);fill:none}
.c0{stroke:#4a7fc1}.c1{stroke:#d9822b}.c2{stroke:#3f9b5f}.c3{stroke:#b04a8f}.c4{stroke:#8a6d3b}.c5{stroke:#c0443c}.c6{stroke:#5aa9b5}.c7{stroke:#7c7c7c}.c8{stroke:#a3b32c}.c9{stroke:#6a55c9}
code{font-size:13px}
"""

W, H, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 64, 150, 14, 40


def esc(text):
    return html.escape(str(text))


def number(v):
    """Short, for axes and labels."""
    if v == 0:
        return "0"
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(v) >= limit:
            return f"{v / limit:.3g}{unit}"
    return f"{v:.3g}"


def linear_ticks(low, high, n=5):
    if high <= low:
        high = low + 1
    raw = (high - low) / n
    step = 10 ** math.floor(math.log10(raw))
    step *= next(k for k in (1, 2, 5, 10) if raw <= k * step)
    at = math.ceil(low / step) * step
    out = []
    while at <= high + step * 1e-9:
        out.append(at)
        at += step
    return out


def log_ticks(low, high):
    return [10.0 ** k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


class Axis:
    """Maps values to places; log or linear."""

    def __init__(self, low, high, start, end, log=False, ticks=None):
        self.log = log
        self.ticks = ticks or (log_ticks(low, high) if log else linear_ticks(low, high))
        self.low, self.high = min(low, self.ticks[0]), max(high, self.ticks[-1])
        self.start, self.end = start, end

    def __call__(self, v):
        if self.log:
            part = (math.log10(max(v, self.low)) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low) or 1)
        else:
            part = (v - self.low) / (self.high - self.low or 1)
        return self.start + part * (self.end - self.start)


def frame(x, y, x_label, y_label, x_names=None):
    out = [f'<svg viewBox="0 0 {W} {H}" role="img">']
    for i, t in enumerate(x.ticks):
        at = x(t)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{H - BOTTOM}"/>'
                   f'<text x="{at:.1f}" y="{H - BOTTOM + 15}" text-anchor="middle">{esc(x_names[i] if x_names else number(t))}</text>')
    for t in y.ticks:
        at = y(t)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{W - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
                   f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(t)}</text>')
    out.append(f'<text x="{(LEFT + W - RIGHT) / 2}" y="{H - 6}" text-anchor="middle" class="label">{esc(x_label)}</text>'
               f'<text transform="translate(14 {(TOP + H - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" class="label">{esc(y_label)}</text>')
    return out


def lines(series, x_label, y_label, x_log=False, y_log=False, x_ticks=None, x_names=None, y_from=None):
    """series: [(name, [(x, y), ...])]."""
    xs = [p[0] for _, points in series for p in points]
    ys = [p[1] for _, points in series for p in points if not y_log or p[1] > 0]
    if not xs or not ys:
        return ""
    x = Axis(min(xs), max(xs), LEFT, W - RIGHT, x_log, x_ticks)
    y = Axis(min(ys) if y_from is None else y_from, max(ys), H - BOTTOM, TOP, y_log)
    out = frame(x, y, x_label, y_label, x_names)
    for i, (name, points) in enumerate(series):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        out.append(f'<polyline class="line c{i % 10}" points="{path}"><title>{esc(name)}</title></polyline>')
        out.append(f'<line class="line c{i % 10}" x1="{W - RIGHT + 8}" x2="{W - RIGHT + 24}" y1="{TOP + 8 + 16 * i}" y2="{TOP + 8 + 16 * i}"/>'
                   f'<text x="{W - RIGHT + 28}" y="{TOP + 12 + 16 * i}">{esc(name)}</text>')
    return "".join(out) + "</svg>"


def bars(rows, label, unit=""):
    """rows: [(name, value, low, high)]; low and high are drawn as a whisker unless None."""
    rows = [r for r in rows if r[1] is not None]
    if not rows:
        return ""
    left, height = 190, 22 * len(rows) + 40
    x = Axis(0, max(max(r[1], r[3] or 0) for r in rows), left, W - 90)
    out = [f'<svg viewBox="0 0 {W} {height}" role="img">']
    for t in x.ticks:
        out.append(f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="4" y2="{height - 34}"/>'
                   f'<text x="{x(t):.1f}" y="{height - 20}" text-anchor="middle">{number(t)}</text>')
    for i, (name, value, low, high) in enumerate(rows):
        top = 6 + 22 * i
        out.append(f'<text x="{left - 8}" y="{top + 13}" text-anchor="end">{esc(name)}</text>'
                   f'<rect class="bar" x="{left}" y="{top}" height="16" width="{max(0.5, x(value) - left):.1f}"/>'
                   f'<text x="{x(max(value, high or 0)) + 6:.1f}" y="{top + 13}">{number(value)}{esc(unit)}</text>')
        if low is not None:
            out.append(f'<path class="whisker" d="M{x(low):.1f} {top + 8}H{x(high):.1f}M{x(low):.1f} {top + 4}v8M{x(high):.1f} {top + 4}v8"/>')
    out.append(f'<text x="{(left + W - 90) / 2}" y="{height - 4}" text-anchor="middle" class="label">{esc(label)}</text></svg>')
    return "".join(out)


def standalone(drawn):
    """A drawing as a file of its own, with a background and colours that do not depend on the reader's."""
    style = CSS.split("@media", 1)[0].replace("color-scheme:light dark;", "") + "".join(
        line + "\n" for line in CSS.split("\n") if line.startswith((".grid", ".c0"))) + "svg text{font:11px system-ui,sans-serif;fill:var(--ink)}svg .label{fill:var(--soft)}"
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        'role="img">', f'role="img"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>', 1) + "\n"


QUANTILES = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")]


def nines(q):
    """0.9 is 1, 0.99 is 2: what is left of 1, as a power of ten."""
    return -math.log10(max(1 - q, 5e-5))


def latency(series):
    """series: [(name, quantiles, microseconds)]: each quantile's latency, tails stretched."""
    drawn = [(name, [(nines(q), v) for q, v in zip(qs, us) if v > 0]) for name, qs, us in series]
    return lines(drawn, "percent of deliveries that took no longer", "latency, microseconds", y_log=True,
                 x_ticks=[nines(q) for q, _ in QUANTILES], x_names=[n for _, n in QUANTILES])
