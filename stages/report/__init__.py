"""Scores and profiles to what people read: metrics.json, tables, plot data, one HTML page, the terminal's table."""
