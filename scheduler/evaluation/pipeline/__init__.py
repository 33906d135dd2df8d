"""`bakeoff evaluate pipeline`: does the final answer get better when several models answer each step?

Composed requests with known answers go through a real queue: a number read in a picture, one heard in a recording, and
a step that adds, compares or looks up. Arms differ in whose answers are taken.
"""
