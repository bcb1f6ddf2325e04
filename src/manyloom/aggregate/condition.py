"""n against f: how many updates a rule needs to tolerate f faults, asked before a job runs and of the survivors."""

from __future__ import annotations

from typing import NamedTuple

from manyloom.core.errors import Problem, RunFailed
from manyloom.core.text import plural


class TooFew(RunFailed):
    """A rule's condition is not met by the updates that can be used: the round is as one below quorum.

    Never answered by another rule, least of all the mean.
    """


class Condition(NamedTuple):
    """n >= times f + plus, and at least `least` updates, whatever f."""

    times: int
    plus: int
    least: int = 1

    def __str__(self) -> str:
        """
        >>> str(Condition(2, 3)), str(Condition(0, 1, 8))
        ('n >= 2f+3', 'n >= 8')
        """
        words = [f"n >= {self.times}f+{self.plus}"] if self.times else []
        return ", ".join(words + [f"n >= {self.least}"] * (self.least > 1))

    def most(self, n: int) -> int:
        """The largest f for n updates; below 0 if there is none."""
        return (n - self.plus) // self.times if self.times else n

    def met(self, n: int, f: int) -> bool:
        """Whether n updates are enough; one update of which none is faulty always is."""
        return (n, f, self.least) == (1, 0, 1) or n >= max(self.least, self.times * f + self.plus)

    def broken(self, rule: str, n: int, f: int, usable: str = "") -> Problem | None:
        """The problem with n updates of which f may be faulty, with the largest f and the least n; or None.

        >>> print(Condition(2, 3).broken("krum", 18, 9, "usable ").text(width=100))
        error: krum needs n >= 2f+3: 18 usable updates, f = 9
          got    f = 9 in [aggregate], 18 usable updates
          mend   f = 7 at most with 18 updates, or at least 21 updates with f = 9
        """
        if self.met(n, f):
            return None
        updates = plural(n, (f"{usable}update", f"{usable}updates"))
        fewer = [f"f = {self.most(n)} at most with {plural(n, ('update', 'updates'))}"]
        need = max(self.least, self.times * f + self.plus)
        more = f"at least {need} updates with f = {f}"
        possible = self.times > 0 and n >= self.least and self.most(n) >= 0
        return Problem(
            "too-few",
            f"{rule} needs {self}: {updates}, f = {f}",
            f"f = {f} in [aggregate], {updates}",
            mend=", or ".join([*(fewer if possible else []), more]),
        )
