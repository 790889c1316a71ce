"""Cards of networks, for tests in which most of a card does not matter."""

from typing import Any

from wscnn.network.card import Card


def card_of(phenotype: str = "rare", fold: int = 0, **known: Any) -> Card:
    """Return the card of a `compact` network of one channel and one phenotype, all thresholds 0; `known` differs."""
    usual: dict[str, Any] = {
        "architecture": "compact",
        "pool": "noisy_or",
        "score_pool": "topk",
        "channels": ["DNA"],
        "pixel_size_um": None,
        "screen": "s",
        "parts": {},
        "thresholds": {phenotype: {"field": 0.0, "place": 0.0}},
    }
    return Card(**(usual | known), classes=["negative", phenotype], fold=fold)
