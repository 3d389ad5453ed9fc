"""What is in Redis, byte for byte. Nothing else in the package talks to Redis."""
