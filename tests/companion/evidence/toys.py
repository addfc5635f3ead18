"""Facts made up."""

from __future__ import annotations

from companion.evidence.facts import Fact

PROVENANCE = {
    "device": "cpu",
    "device_name": "a processor",
    "threads": 1,
    "torch": "2.13.0",
    "python": "3.11.7",
    "lthlib": "0.1.0",
    "commit": "0123456789abcdef",
    "dirty": False,
    "source": "0123456789abcdef",
    "started": "2026-11-21T10:00:00+00:00",
    "finished": "2026-11-21T10:01:00+00:00",
}


def facts() -> dict[str, Fact]:
    """What claim B4 rests on, in its favour."""
    seeds = (0, 1, 2)
    return {
        "identity_error": Fact(1e-16, "largest", seeds, (1e-16, 0.0, 1e-17), PROVENANCE),
        "extra_backward_passes": Fact(1.0, "counted", (0,), (1.0,), PROVENANCE),
        "cosine_quadratic": Fact(0.95, "mean", (0, 1), (0.94, 0.96), PROVENANCE),
        "cosine_network": Fact(0.85, "mean over a test", seeds, (0.8, 0.85, 0.9), PROVENANCE),
    }
