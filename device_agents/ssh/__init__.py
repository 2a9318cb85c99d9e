"""Linux boards reached over SSH: the worker is copied to the board, and spoken to over the SSH channel."""
