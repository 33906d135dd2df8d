"""The second paper's claim, tested: does a small model learn as much from the curated tenth as from all?

`rows` reads an instruction set and keeps part of it back, `arms` says what each arm trains on, `training` fine-tunes
and measures, `runs` keeps what is done, `report` compares.
"""
