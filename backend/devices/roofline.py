"""The memory roof: no token comes faster than its bytes through the memory's bandwidth."""

from __future__ import annotations

from backend.devices.flash import GB
from backend.errors import UserError


def roof_tokens_per_s(bytes_per_token: float, gb_per_s: float) -> float:
    """Return the tokens a second at which memory is the limit.

    Args:
        bytes_per_token: Bytes that a token reads.
        gb_per_s: Memory bandwidth, in GB/s: a profile's, or measured in the same run.

    Raises:
        UserError: One of the figures is not above 0.
    """
    if not (bytes_per_token > 0 and gb_per_s > 0):
        raise UserError("A roofline needs bytes a token and a bandwidth above 0.")
    return gb_per_s * GB / bytes_per_token


def bandwidth_share(bytes_per_token: float, seconds_per_token: float, gb_per_s: float) -> float:
    """Return the share of the bandwidth that a measured decode reached: 1 is on the roof.

    Args:
        bytes_per_token: Bytes that a token reads.
        seconds_per_token: Its measured time.
        gb_per_s: Memory bandwidth, in GB/s.

    Raises:
        UserError: One of the figures is not above 0.
    """
    if not seconds_per_token > 0:
        raise UserError("A roofline needs a time a token above 0.")
    return 1 / (seconds_per_token * roof_tokens_per_s(bytes_per_token, gb_per_s))
