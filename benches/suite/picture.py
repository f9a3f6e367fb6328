"""Rates as bars, in an SVG that reads on a light and on a dark page."""

from xml.sax.saxutils import escape

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 20, 20, 64, 52
HEIGHT_OF_BARS = 220
GAP_OF_GROUPS = 44
COLOURS = ("#1f7a8c", "#4aa5b5", "#8fc6d0", "#c77d2e")

STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 }
    .small { font-size: 11px; fill: #59636e }
    .value { font-size: 11px; text-anchor: middle }
    .group { text-anchor: middle }
    line { stroke: #8b949e }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9198a1 } }
"""


def bars(groups, series, caption):
    """`series` maps a name to its messages a second in each of `groups`; returns the text of the SVG."""
    most = max(max(rates) for rates in series.values())
    width_of_group = (WIDTH - LEFT - RIGHT - GAP_OF_GROUPS * (len(groups) - 1)) / len(groups)
    width = width_of_group / len(series)
    floor = TOP + HEIGHT_OF_BARS
    parts = [text("title", LEFT, 24, "Messages a second, received over HTTPS, inserted, committed and deleted")]
    parts += legend(series)
    for at, group in enumerate(groups):
        left = LEFT + at * (width_of_group + GAP_OF_GROUPS)
        parts.append(text("group", left + width_of_group / 2, floor + 20, f"SQS answers in {group}"))
        for number, rates in enumerate(series.values()):
            height = HEIGHT_OF_BARS * rates[at] / most
            x = left + number * width
            parts.append(
                f'<rect x="{x + 2:.1f}" y="{floor - height:.1f}" width="{width - 4:.1f}" height="{height:.1f}" '
                f'fill="{COLOURS[number % len(COLOURS)]}"/>'
            )
            parts.append(text("value", x + width / 2, floor - height - 5, thousands(rates[at])))
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    parts.append(text("small", LEFT, floor + 42, caption))
    body = "\n".join(parts)
    height = floor + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Messages a second by latency of the queue">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def legend(series):
    parts = []
    x = LEFT
    for number, name in enumerate(series):
        label = name.replace("`", "")
        parts.append(f'<rect x="{x}" y="36" width="11" height="11" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(text("", x + 16, 46, label))
        x += 40 + 7.2 * len(label)
    return parts


def text(kind, x, y, content):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'


def thousands(rate):
    return f"{rate / 1000:.0f} k" if rate >= 9_950 else f"{rate / 1000:.1f} k"
