"""Runs on disk: a folder that is never overwritten and says what happened."""
