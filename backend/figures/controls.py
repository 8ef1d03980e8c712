"""Controls: policies that choose at random.

They are drawn beside the others, so that a score can be seen to beat them; no one would use them, so they are
never on a front.
"""

from __future__ import annotations

from backend.methods import every_method


def is_control(policy: str) -> bool:
    """Tell whether a method is there to be beaten, not to be used; one that is not registered is not."""
    methods = every_method()
    return policy in methods and methods[policy].control


def named_control(policy: str, title: str) -> str:
    """Return a series' name; a control's says that it is one."""
    return f"{title} (control)" if is_control(policy) else title
