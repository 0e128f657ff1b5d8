"""What repeats say: medians, intervals of confidence, who is ahead."""
import math
import statistics

# Two-sided 95 % points of Student's t by degrees of freedom; beyond the last the normal one, a little above it.
T95 = (None, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
       2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


def t95(freedom):
    return T95[freedom] if freedom < len(T95) else 2.0


def interval(values):
    """Mean and half the width of its 95 % interval, from the spread of the values; None of a single one."""
    if len(values) < 2:
        return None
    return statistics.mean(values), t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def summary(values):
    i = interval(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "ci95": [i[0] - i[1], i[0] + i[1]] if i else None}


def ratio(ours, theirs, sign):
    """How many times better ours is (sign 1: more is better, -1: less is), round by round: the geometric mean and its 95 %
    interval, (ratio, low, high). Rounds are paired: what the machine did to one it did to the other. None where a figure is 0."""
    pairs = [(x, y) for x, y in zip(ours, theirs)]
    if not pairs or any(x <= 0 or y <= 0 for x, y in pairs):
        return None
    logs = [sign * math.log(x / y) for x, y in pairs]
    i = interval(logs)
    middle, half = i if i else (logs[0], 0)
    return tuple(math.exp(v) for v in (middle, middle - half, middle + half))


OURS, THEIRS, EVEN = "ours", "theirs", "even"


def verdict(r):
    """Of a ratio with its interval: who is ahead, or that the rounds do not tell."""
    _, low, high = r
    return OURS if low > 1 else THEIRS if high < 1 else EVEN
