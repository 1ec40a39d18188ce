"""Modelpool."""
