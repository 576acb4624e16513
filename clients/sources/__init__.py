"""Where a real device's samples come from."""
