"""The tiles that the encoder learns from; without torch, which a plan of a screen does not need."""

#: Side of a tile, its minimum, and tiles per step.
TILE, LEAST_TILE, BATCH = 96, 56, 32
