"""Curation: many machine-made instructions in, the best of them out, and for each of the others why not.

`recipe` is what a job is to do, `reading` how its input is read, `stages` the stages one by one, `runner` what takes a
job through them, `export` and `report` what comes of it. Models are asked by ordinary tasks with the source
`curation:JOB`; nothing here runs a model or keeps a choice of its own.
"""
