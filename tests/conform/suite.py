"""What a case is, and the list of them. A case module calls add() or decorates with @case()."""
from dataclasses import dataclass, field
from typing import Callable

CASES = []


@dataclass
class Case:
    section: str      # of RFC 6455, or H3, H5 ... of the hardening rules
    sentence: str     # what must be true
    run: Callable     # coroutine function (ctx, *args)
    args: tuple = ()
    server: str = "main"   # "main", or "short" for the instance with short timeouts and small limits
    deadline: float = 60.0  # seconds
    alone: bool = False    # heavy: few of these at a time
    outcome: str = ""
    detail: str = ""
    seconds: float = field(default=0.0)

    @property
    def name(self):
        return f"{self.section} {self.sentence}"


def add(section, sentence, run, *args, **options):
    CASES.append(Case(section, sentence, run, args, **options))


def case(section, sentence, **options):
    def register(run):
        add(section, sentence, run, **options)
        return run
    return register
