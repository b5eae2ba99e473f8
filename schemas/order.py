"""What a set of arrows between names says: is there a cycle, and who can be reached from whom."""

from collections.abc import Iterable, Mapping

Arrow = tuple[str, str]
"""(source, target)"""


def successors(arrows: Iterable[Arrow]) -> dict[str, list[str]]:
    """Return {name: those right after it, sorted}; who has nobody after him is left out."""
    found: dict[str, set[str]] = {}
    for source, target in arrows:
        found.setdefault(source, set()).add(target)
    return {source: sorted(targets) for source, targets in found.items()}


def find_cycle(arrows: Iterable[Arrow]) -> list[str]:
    """Return the first cycle found as a path that ends where it begins, the same for the same arrows; [] = none."""
    after = successors(arrows)
    done: set[str] = set()
    for start in sorted(after):
        if cycle := _cycle_from(start, after, done):
            return cycle
    return []


def _cycle_from(start: str, after: Mapping[str, list[str]], done: set[str]) -> list[str]:
    """Walk depth first from `start`, without recursion: the longest chain is deeper than Python's stack."""
    path, ahead = [start], [iter(after.get(start, ()))]
    while path:
        following = next(ahead[-1], None)
        if following is None:
            done.add(path.pop())
            ahead.pop()
        elif following in path:
            return [*path[path.index(following) :], following]
        elif following not in done:
            path.append(following)
            ahead.append(iter(after.get(following, ())))
    return []


def reachable(starts: Iterable[str], after: Mapping[str, list[str]]) -> set[str]:
    """Return all that can be reached from any of `starts`, themselves included."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(after.get(name, ()))
    return found
