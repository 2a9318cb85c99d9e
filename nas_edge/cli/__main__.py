"""`python -m nas_edge.cli`, the same as `nas-edge`."""

from nas_edge.cli import main

main()
