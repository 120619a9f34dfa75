"""Building HRVs: recording what heads attend to while images are made."""
