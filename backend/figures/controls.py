"""Controls: policies that choose at random.

They are drawn beside the others, so that a score can be seen to beat them; no one would use them, so they are
never on a front.
"""

from __future__ import annotations

CONTROLS = ("random", "random_swap")
"""Their names, of either kind of method."""


def is_control(policy: str) -> bool:
    """Tell whether a method is there to be beaten, not to be used."""
    return policy in CONTROLS


def named_control(policy: str, title: str) -> str:
    """Return a series' name; a control's says that it is one."""
    return f"{title} (control)" if is_control(policy) else title
