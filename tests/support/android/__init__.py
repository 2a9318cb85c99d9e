"""A stand-in for a phone, and what runs on it."""
