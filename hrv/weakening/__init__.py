"""Ordered weakening: plan, statistics, tables, pictures."""
