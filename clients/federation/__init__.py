"""A device of a real federation: its files, its process, and its ClientApp."""
