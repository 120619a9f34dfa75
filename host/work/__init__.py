"""Work that takes long: sampling, saved states, time."""
