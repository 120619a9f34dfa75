"""The host's folders: HRVs, published vectors, experiments, results."""
