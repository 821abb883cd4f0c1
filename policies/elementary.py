"""Elementary functions of float64 as compiled scalars: the same bits on every processor and with
every C library.

The C library's `exp` and `log` end with other last bits on a processor without fused multiply-add,
numpy's with AVX-512; so do those of other C libraries. Here they are sums and products that IEEE
754 defines, which numba without `fastmath` compiles as they stand. Call the scalars from
kernels; `exps`, `logs`, ... take arrays. Importing this module imports numba.

Methods: reduction to a short interval and a polynomial, as in fdlibm (Sun Microsystems 1993; Tang,
"Table-driven implementation of the exponential function", ACM TOMS 15, 1989, on the error). Errors
that are stated are in units of the last place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.jit import njit, read_only

LN2_HIGH, LN2_LOW, LN2 = (
    6.93147180369123816490e-01,
    1.90821492927058770002e-10,
    6.93147180559945286227e-01,
)
"""ln 2 in two parts, the first of which has 21 zero bits at its end: whole multiples of it are
exact.
"""


@njit()
def _scaled(x: float, k: int) -> float:
    """x 2^k, of a normal x near 1."""
    while k > 1000:
        x, k = x * 2.0**1000, k - 1000
    while k < -1000:
        x, k = x * 2.0**-1000, k + 1000
    return float(x * np.int64((k + 1023) << 52).view(np.float64))


@njit()
def _exp_near_0(high: float, low: float) -> float:
    """exp(high - low) for at most ln(2) / 2, `low` being far less than `high` (fdlibm's
    e_exp.c).
    """
    r = high - low
    t = r * r
    p = 4.13813679705723846039e-08
    p = -1.65339022054652515390e-06 + t * p
    p = 6.61375632143793436117e-05 + t * p
    p = -2.77777777770155933842e-03 + t * p
    p = 1.66666666666666019037e-01 + t * p
    c = r - t * p
    return 1.0 - ((low - (r * c) / (2.0 - c)) - high)


@njit()
def exp(x: float) -> float:
    """e^x, off by less than 1."""
    if not -746.0 < x < 710.0:
        return math.inf if x > 0.0 else (0.0 if x < 0.0 else x)
    k = math.floor(x * (1.0 / LN2) + 0.5)
    return _scaled(_exp_near_0(x - k * LN2_HIGH, k * LN2_LOW), int(k))


@njit()
def exp2(x: float) -> float:
    """2^x, off by less than 2; exact for whole numbers."""
    if not -1076.0 < x < 1024.0:
        return math.inf if x > 0.0 else (0.0 if x < 0.0 else x)
    k = math.floor(x + 0.5)
    return _scaled(_exp_near_0((x - k) * LN2, 0.0), int(k))


@njit()
def _parts(x: float) -> tuple[int, float]:
    """k and f of x = 2^k (1 + f), with 1 + f within the roots of 1/2 and 2, for x > 0."""
    small = x < 2.0**-1022
    bits = np.float64(x * 2.0**54 if small else x).view(np.int64)
    k = int(bits >> 52) - (1077 if small else 1023)
    m = np.int64((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    if m > math.sqrt(2.0):
        m, k = 0.5 * m, k + 1
    return k, float(m - 1.0)


@njit()
def _log_near_1(f: float) -> tuple[float, float]:
    """Two numbers, the first less the second being ln(1 + f) (fdlibm's e_log.c)."""
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (
        3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)
    )
    odd = z * (
        6.666666666666735130e-01
        + w
        * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    half = 0.5 * f * f
    return f, half - s * (half + (even + odd))


@njit()
def log(x: float) -> float:
    """ln x, off by less than 1."""
    if not 0.0 < x < math.inf:
        return -math.inf if x == 0.0 else (x if x > 0.0 else math.nan)
    k, f = _parts(x)
    high, low = _log_near_1(f)
    return k * LN2_HIGH - ((low - k * LN2_LOW) - high)


@njit()
def log2(x: float) -> float:
    """The logarithm to base 2, off by less than 2; exact for powers of 2."""
    if not 0.0 < x < math.inf:
        return log(x)
    k, f = _parts(x)
    high, low = _log_near_1(f)
    return k + (high - low) / LN2


@njit()
def log1p(x: float) -> float:
    """ln(1 + x), off by less than 2."""
    y = 1.0 + x
    return log(y) if y == math.inf or not y > 0.0 else log(y) + (x - (y - 1.0)) / y


@njit()
def power(x: float, y: float) -> float:
    """x^y for x >= 0, off by less than 2 + |y ln x|."""
    return 1.0 if y == 0.0 else exp(y * log(x))


@njit()
def tanh(x: float) -> float:
    """The hyperbolic tangent, off by less than 2^-52."""
    e = exp(-2.0 * abs(x))
    t = (1.0 - e) / (1.0 + e)
    return t if x > 0.0 else -t


@njit()
def circle(turns: float) -> tuple[float, float]:
    """Cosine and sine of so many whole turns (an angle over 2 pi), off by less than 2^-52 for up to
    some turns. Without a branch: which quarter it is nobody can foretell.
    """
    quarter = np.floor(4.0 * turns + 0.5)
    x = 2.0 * math.pi * (turns - 0.25 * quarter)
    z = x * x
    c = 2.08757232129817482790e-09 + z * -1.13596475577881948265e-11
    c = 2.48015872894767294178e-05 + z * (-2.75573143513906633035e-07 + z * c)
    c = 4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * c)
    cosine = 1.0 - (0.5 * z - z * z * c)
    s = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10
    s = -1.98412698298579493134e-04 + z * (2.75573137070700676789e-06 + z * s)
    s = -1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 + z * s)
    sine = x + x * z * s
    turn = quarter - 4.0 * np.floor(0.25 * quarter)  # 0, 1, 2 or 3
    is_odd = (turn == 1.0) | (turn == 3.0)
    across = sine if is_odd else cosine
    up = cosine if is_odd else sine
    is_left = (turn == 1.0) | (turn == 2.0)
    return (-across if is_left else across), (-up if turn >= 2.0 else up)


@njit()
def normal_quantile(p: float) -> float:
    """The standard normal quantile, relative error about 1e-16 (Wichura, algorithm AS 241, Applied
    Statistics 37, 1988: PPND16).
    """
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        a = 2.5090809287301226727e3
        for c in (
            33430.575583588128105,
            67265.770927008700853,
            45921.953931549871457,
            13731.693765509461125,
            1971.5909503065514427,
        ):
            a = a * r + c
        a = (a * r + 133.14166789178437745) * r + 3.387132872796366608
        b = 5226.495278852545925
        for c in (
            28729.085735721942674,
            39307.89580009271061,
            21213.794301586595867,
            5394.1960214247511077,
            687.1870074920579083,
        ):
            b = b * r + c
        return q * a / ((b * r + 42.313330701600911252) * r + 1.0)
    if not 0.0 < p < 1.0:
        return -math.inf if p == 0.0 else (math.inf if p == 1.0 else math.nan)
    r = math.sqrt(-log(min(p, 1.0 - p)))
    if r <= 5.0:
        r -= 1.6
        a = 7.7454501427834140764e-4
        for c in (
            0.0227238449892691845833,
            0.24178072517745061177,
            1.27045825245236838258,
            3.64784832476320460504,
            5.7694972214606914055,
        ):
            a = a * r + c
        a = (a * r + 4.6303378461565452959) * r + 1.42343711074968357734
        b = 1.05075007164441684324e-9
        for c in (
            5.475938084995344946e-4,
            0.0151986665636164571966,
            0.14810397642748007459,
            0.68976733498510000455,
            1.6763848301838038494,
        ):
            b = b * r + c
        b = (b * r + 2.05319162663775882187) * r + 1.0
    else:
        r -= 5.0
        a = 2.01033439929228813265e-7
        for c in (
            2.71155556874348757815e-5,
            0.0012426609473880784386,
            0.026532189526576123093,
            0.29656057182850489123,
            1.7848265399172913358,
        ):
            a = a * r + c
        a = (a * r + 5.4637849111641143699) * r + 6.6579046435011037772
        b = 2.04426310338993978564e-15
        for c in (
            1.4215117583164458887e-7,
            1.8463183175100546818e-5,
            7.868691311456132591e-4,
            0.0148753612908506148525,
            0.13692988092273580531,
        ):
            b = b * r + c
        b = (b * r + 0.59983220655588793769) * r + 1.0
    return a / b if q > 0.0 else -a / b


@njit()
def normal_tail(x: float) -> float:
    """The chance that a standard normal exceeds x, relative error about 1e-15 (Cody, "Rational
    Chebyshev approximations for the error function", Mathematics of Computation 23, 1969, as
    arranged for the normal in ACM TOMS 19, 1993, algorithm 715).
    """
    y = abs(x)
    if y <= 0.67448975:
        z = y * y
        a, b = 0.065682337918207449113 * z, z
        for c, d in (
            (2.2352520354606839287, 47.20258190468824187),
            (161.02823106855587881, 976.09855173777669322),
            (1067.6894854603709582, 10260.932208618978205),
        ):
            a, b = (a + c) * z, (b + d) * z
        return 0.5 - x * (a + 18154.981253343561249) / (b + 45507.789335026729956)
    # exp(-y^2 / 2) in two factors: the first exponent is exact.
    whole = math.floor(y * 16.0) / 16.0
    density = exp(-0.5 * whole * whole) * exp(-0.5 * (y - whole) * (y + whole))
    if y <= 5.656854249492380195:
        a, b = 1.0765576773720192317e-8 * y, y
        for c, d in (
            (0.39894151208813466764, 22.266688044328115691),
            (8.8831497943883759412, 235.38790178262499861),
            (93.506656132177855979, 1519.377599407554805),
            (597.27027639480026226, 6485.558298266760755),
            (2494.5375852903726711, 18615.571640885098091),
            (6848.1904505362823326, 34900.952721145977266),
            (11602.651437647350124, 38912.003286093271411),
        ):
            a, b = (a + c) * y, (b + d) * y
        tail = density * (a + 9842.7148383839780218) / (b + 19685.429676859990727)
    else:
        z = 1.0 / (y * y)
        a, b = 0.02307344176494017303 * z, z
        for c, d in (
            (0.21589853405795699, 1.28426009614491121),
            (0.1274011611602473639, 0.468238212480865118),
            (0.022235277870649807, 0.0659881378689285515),
            (0.001421619193227893466, 0.00378239633202758244),
        ):
            a, b = (a + c) * z, (b + d) * z
        series = z * (a + 2.9112874951168792e-5) / (b + 7.29751555083966205e-5)
        tail = density * (0.398942280401432677939946059934 - series) / y
    return tail if x > 0.0 else 1.0 - tail


@njit()
def log_gamma(a: float) -> float:
    """ln of the gamma function for a > 0: Stirling's series from 10 on (Abramowitz & Stegun 1964,
    6.1.41).
    """
    product = 1.0
    while a < 10.0:
        product *= a
        a += 1.0
    z = 1.0 / (a * a)
    series = 1.0 / 1260.0 - z * (1.0 / 1680.0 - z * (1.0 / 1188.0 - z * (691.0 / 360360.0)))
    series = (1.0 / 12.0 - z * (1.0 / 360.0 - z * series)) / a
    return (a - 0.5) * log(a) - a + 0.5 * log(2.0 * math.pi) + series - log(product)


@njit()
def gamma_quantile(a: float, p: float) -> float:
    """The x with P(a, x) = p, the regularised lower incomplete gamma function of shape a > 0; P is
    met within some 1e-15 (1 + a |ln a|).

    P by its series (Abramowitz & Stegun 1964, 6.5.29); its root by Newton's method in ln x, kept
    between what is known to be too little and too much. From a shape of 10^6 on the series is long,
    and Wilson & Hilferty's approximation (1931) right to 9 digits.
    """
    if not 0.0 < p < 1.0:
        return 0.0 if p == 0.0 else (math.inf if p == 1.0 else math.nan)
    cube = 1.0 - 1.0 / (9.0 * a) + normal_quantile(p) / (3.0 * math.sqrt(a))
    if a > 1e6:
        return a * cube * cube * cube
    scale = log_gamma(a + 1.0)
    low, high = -800.0, log(a + 40.0 + 40.0 * math.sqrt(a))
    y = log(a) + 3.0 * log(cube) if cube > 0.3 else (log(p) + scale) / a
    for _ in range(100):
        y = y if low < y < high else 0.5 * (low + high)
        x = exp(y)
        term = total = 1.0
        n = a
        while term > 1e-17 * total:
            n += 1.0
            term *= x / n
            total += term
        first = exp(a * y - x - scale)
        off = first * total - p
        if off > 0.0:
            high = y
        else:
            low = y
        step = off / (first * a) if first > 0.0 else math.inf
        y -= step
        if abs(step) < 1e-15:
            break
    return exp(y)


# In place and many at a time, for kernels that have columns of numbers: the operations of the
# scalars, without a branch that would keep LLVM from taking a vector of them. Where one number of a
# column is out of the common range, the scalars do the column.

_WHOLE = 1.5 * 2.0**52
"""Added to a whole number, it leaves it in the low bits: processors before AVX-512 have no
conversion of vectors to 64-bit integers."""


@njit()
def exp_all(x: Any, n: int) -> None:
    """`x[:n] = exp(x[:n])`, the same bits."""
    is_far = 0
    for i in range(n):
        is_far |= not -690.0 < x[i] < 690.0
    if is_far:
        for i in range(n):
            x[i] = exp(x[i])
        return
    for i in range(n):
        k = np.floor(x[i] * (1.0 / LN2) + 0.5)
        power_of_2 = np.int64(np.float64(k + (_WHOLE + 1023.0)).view(np.int64) << 52)
        x[i] = _exp_near_0(x[i] - k * LN2_HIGH, k * LN2_LOW) * power_of_2.view(np.float64)


@njit()
def log_all(x: Any, n: int) -> None:
    """`x[:n] = log(x[:n])`, the same bits."""
    is_far = 0
    for i in range(n):
        is_far |= not 2.0**-1022 <= x[i] < math.inf
    if is_far:
        for i in range(n):
            x[i] = log(x[i])
        return
    for i in range(n):
        bits = np.float64(x[i]).view(np.int64)
        k = np.int64((bits >> 52) | 0x4330000000000000).view(np.float64) - (2.0**52 + 1023.0)
        m = np.int64((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
        is_upper = m > math.sqrt(2.0)
        m = 0.5 * m if is_upper else m
        k = k + 1.0 if is_upper else k
        high, low = _log_near_1(m - 1.0)
        x[i] = k * LN2_HIGH - ((low - k * LN2_LOW) - high)


@njit()
def power_all(x: Any, y: float, n: int) -> None:
    """`x[:n] = power(x[:n], y)`, the same bits."""
    if y == 0.0:
        for i in range(n):
            x[i] = 1.0
        return
    log_all(x, n)
    for i in range(n):
        x[i] *= y
    exp_all(x, n)


@njit()
def tanh_all(x: Any, n: int, part: Any) -> None:
    """`x[:n] = tanh(x[:n])`, the same bits; `part` `[>= n]` is overwritten."""
    for i in range(n):
        part[i] = -2.0 * abs(x[i])
    exp_all(part, n)
    for i in range(n):
        t = (1.0 - part[i]) / (1.0 + part[i])
        x[i] = t if x[i] > 0.0 else -t


# Of arrays, element by element, as numpy's functions are


def _each(loop: Any, *arguments: npt.ArrayLike) -> Any:
    """What `loop` makes of arrays of float64, broadcast against each other; of scalars a scalar."""
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in arguments))
    out = np.empty(arrays[0].shape)
    loop(*(read_only(np.ascontiguousarray(x).reshape(-1)) for x in arrays), out.reshape(-1))
    return out[()]


@njit()
def _exps(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = exp(x[i])


def exps(x: npt.ArrayLike) -> Any:
    return _each(_exps, x)


@njit()
def _exp2s(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = exp2(x[i])


def exp2s(x: npt.ArrayLike) -> Any:
    return _each(_exp2s, x)


@njit()
def _logs(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = log(x[i])


def logs(x: npt.ArrayLike) -> Any:
    return _each(_logs, x)


@njit()
def _logs2(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = log2(x[i])


def logs2(x: npt.ArrayLike) -> Any:
    return _each(_logs2, x)


def logs1p(x: npt.ArrayLike) -> Any:
    x = np.asarray(x, dtype=np.float64)
    y = 1.0 + x
    whole = logs(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = (x - (y - 1.0)) / y
    return np.where((y > 0.0) & (y < math.inf), whole + lost, whole)[()]


def powers(x: npt.ArrayLike, y: npt.ArrayLike) -> Any:
    y = np.asarray(y, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a huge power; 0 to the power of 0
        return np.where(y == 0.0, 1.0, exps(y * logs(x)))[()]


@njit()
def _normal_quantiles(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = normal_quantile(x[i])


def normal_quantiles(x: npt.ArrayLike) -> Any:
    return _each(_normal_quantiles, x)


@njit()
def _gamma_quantiles(a: Any, p: Any, out: Any) -> None:
    for i in range(len(a)):
        out[i] = gamma_quantile(a[i], p[i])


def gamma_quantiles(a: npt.ArrayLike, p: npt.ArrayLike) -> Any:
    return _each(_gamma_quantiles, a, p)
