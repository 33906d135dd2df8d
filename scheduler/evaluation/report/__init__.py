"""Everything that is measured of judges, on one page."""
