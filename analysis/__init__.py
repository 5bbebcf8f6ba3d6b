"""Reads result files only: statistics, tables, attribution, figures, report."""
