"""Files written atomically, saved states, digests."""
