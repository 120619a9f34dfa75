"""Attend and Excite: settings, subjects, loss, report."""
