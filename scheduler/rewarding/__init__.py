"""Reward models, trained and measured.

`reading` brings preferences in, `baselines` says what is to be beaten and `figures` by how much, `crossfit` trains on
folds and then on everything, `plots` draws what an artifact keeps of it.
"""
