"""The demo: real engines, real inputs with a known truth, and what the judge made of them."""
