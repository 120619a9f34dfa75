"""Work that is dealt to the processes of a Ray cluster."""
