"""Reward models: scorers trained on preferences.

`text` renders what a reward model reads, the same in training, in its backend, for its judge and in curation;
`surface` is what can be counted in a text, and `counted` what is fitted on that; `model` is the network, `training` and
`checkpoint` how it is fitted; `artifact` is the folder that comes of it, and `card` what that folder says of itself.
"""
