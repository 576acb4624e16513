"""The server of a real federation: its files, its processes, and what becomes of what the devices learn."""
