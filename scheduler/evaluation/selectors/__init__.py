"""Are selectors worth their name? Measured on published scores of many models for the same inputs.

`rows` reads them, `arms` lets the selectors choose with what the fit rows taught them, `measure` says how good the
choices were, and `command` prints it.
"""
