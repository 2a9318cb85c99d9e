"""What tests of several rooms share. Nothing here is a test, and no test file is imported by another."""
