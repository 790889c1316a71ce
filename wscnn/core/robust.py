"""Robust statistics that several stages share."""

#: Median absolute deviation times this estimates the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826022185056018
