"""How numbers are written: one formatter for each kind. Take them from `core.text`, which has them all."""

from __future__ import annotations

import math

UNKNOWN = "n/a"


def finite(value: object) -> float | None:
    """The value as a float, or None where it is missing, no number, or not finite.

    >>> finite(1), finite(None), finite(float("nan")), finite(True)
    (1.0, None, None, None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def number(value: object) -> str:
    """A metric or loss: three digits behind the point, fewer where the number is large.

    >>> number(0.8871), number(12.3456), number(48213.2), number(0.00012), number(None)
    ('0.887', '12.35', '48 213', '1.2e-04', 'n/a')
    """
    v = finite(value)
    if v is None:
        return UNKNOWN
    size = abs(v)
    if 0 < size < 0.0005:
        return f"{v:.1e}"
    if size >= 1000:
        return count(v) if size < 1e9 else f"{v:.2e}"
    return f"{v:.3f}" if size < 10 else f"{v:.2f}" if size < 100 else f"{v:.1f}"


def beside(value: float, other: object) -> str:
    """The size of a difference, with as many digits as a number it belongs to is shown with.

    >>> beside(-0.0104, 0.887), beside(7.2531, 62.51), beside(120.4, 48213.2)
    ('0.010', '7.25', '120')
    """
    scale = abs(finite(other) or 0.0)
    if scale < 10:
        return number(abs(value))
    return f"{abs(value):.2f}" if scale < 100 else f"{abs(value):.1f}" if scale < 1000 else count(abs(value))


def short(value: object) -> str:
    """The end of an interval: two digits.

    >>> short(0.8433), short(None)
    ('0.84', 'n/a')
    """
    v = finite(value)
    return UNKNOWN if v is None else f"{v:.2f}" if abs(v) < 1000 else number(v)


def signed(value: object) -> str:
    """A difference of two metrics, with its sign.

    >>> signed(0.0104), signed(-0.0021), signed(0.0001)
    ('+0.010', '-0.002', '0.000')
    """
    v = finite(value)
    if v is None:
        return UNKNOWN
    if abs(v) < 0.0005:
        return "0.000"
    return ("+" if v > 0 else "-") + number(abs(v))


def count(value: float) -> str:
    """A whole number, thousands divided by a space.

    >>> count(4812), count(999)
    ('4 812', '999')
    """
    return f"{round(value):,}".replace(",", " ")


def epsilon(value: object) -> str:
    """Epsilon, two digits, always rounded up.

    >>> epsilon(3.9712), epsilon(4.0), epsilon(None)
    ('3.98', '4.00', 'n/a')
    """
    v = finite(value)
    return UNKNOWN if v is None else f"{math.ceil(v * 100 - 1e-9) / 100:.2f}"


def factor(value: float) -> str:
    """e to the epsilon, rounded up: by how much odds can change at most.

    >>> factor(3.98), factor(0.5), factor(21.0)
    ('54', '1.7', '1.4e+09')
    """
    v = math.exp(value) if value < 700 else math.inf
    if not math.isfinite(v):
        return "more than 1e+300"
    if v < 10:
        return f"{math.ceil(v * 10 - 1e-9) / 10:.1f}"
    if v < 1e6:
        return count(math.ceil(v - 1e-9))
    power = math.floor(math.log10(v))
    return f"{math.ceil(v / 10**power * 10) / 10:.1f}e+{power:02d}"


def size(value: object) -> str:
    """Bytes in decimal units.

    >>> size(912), size(4549), size(179_400), size(664e6), size(80.2e9), size(None)
    ('912 B', '4.5 kB', '179 kB', '664 MB', '80 GB', 'n/a')
    """
    v = finite(value)
    if v is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if v < 999.5:
            return f"{v:.1f} {unit}" if v < 9.95 and unit != "B" else f"{v:.0f} {unit}"
        v /= 1000
    return f"{v:.1f} TB"


def seconds(value: object, digits: int = 1) -> str:
    """A time in seconds.

    >>> seconds(14.31), seconds(None)
    ('14.3 s', 'n/a')
    """
    v = finite(value)
    return UNKNOWN if v is None else f"{v:.{digits}f} s"


def about(value: object) -> str:
    """A time as an estimate, in the unit a person would use.

    >>> about(1.6), about(10.1), about(170), about(7300)
    ('2 s', '10 s', '3 min', '2 h')
    """
    v = finite(value)
    if v is None:
        return UNKNOWN
    if v < 0.95:
        return "1 s" if v > 0.5 else f"{v:.1g} s"
    return f"{v:.0f} s" if v < 90 else f"{v / 60:.0f} min" if v < 5400 else f"{v / 3600:.0f} h"


def clock(value: float) -> str:
    """Elapsed time as a clock shows it.

    >>> clock(12.7), clock(3723)
    ('0:12', '1:02:03')
    """
    s = max(0, int(value))
    return f"{s // 60}:{s % 60:02d}" if s < 3600 else f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}"


def percent(share: object) -> str:
    """A share in whole percent.

    >>> percent(0.463), percent(None)
    ('46 %', 'n/a')
    """
    v = finite(share)
    return UNKNOWN if v is None else f"{100 * v:.0f} %"


def digest(value: object, groups: int = 4) -> str:
    """The start of a digest in groups of four, as people compare it.

    >>> digest("9f2c41aa07de5b1066c3"), digest(None)
    ('9f2c 41aa 07de 5b10', 'n/a')
    """
    if not isinstance(value, str) or not value:
        return UNKNOWN
    return " ".join(value[i : i + 4] for i in range(0, min(len(value), 4 * groups), 4))
