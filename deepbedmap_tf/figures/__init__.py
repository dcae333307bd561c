"""Figures for publication, drawn with PyGMT from what an evaluation found."""
