"""Checkpoints that are whole or absent: written aside, recorded in a manifest, put in place by one rename.

Knows no torch and no trainer: a checkpoint is a folder of files, whoever wrote them.
"""
