"""Sweeps over static and traced hyper-parameters: many programs, one table.

`space` defines the values of each hyper-parameter, `recipe` the function that receives
it, and `study` the settings that are tried. `bucket` trains settings with equal static
values as one population; `engines` runs the buckets in this process or on a Ray
cluster. `sweep` finally trains the best setting again.
"""
