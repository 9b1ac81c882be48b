"""Sweeps over static and traced hyper-parameters: many programs, one table.

`space` says what each hyper-parameter may be, `recipe` who takes it, and `study` which
settings are tried; `bucket` trains those of equal static values as one population, and
`engines` do so here or on a cluster of Ray; `sweep` trains the best again.
"""
