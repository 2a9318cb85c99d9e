"""`python -m nas_edge.cli`: the command line without its script."""

from nas_edge.cli import main

main()
