"""Reports of runs, for people. `read_run` reads a run folder, `run_report` or `compare_report` turns it into a report
(`group_report` those for several targets), and that is written as a page (`to_page`), as text for the terminal
(`to_text`), as page, JSON and CSV files (`write_report`), or served to a browser and kept up to date (`serve`).
"""

from nas_edge.report.comparison import compare_report
from nas_edge.report.group import group_report
from nas_edge.report.page import to_page
from nas_edge.report.reading import RunFacts, read_run
from nas_edge.report.sections import run_report
from nas_edge.report.serve import serve
from nas_edge.report.text import to_text
from nas_edge.report.write import write_file, write_report

__all__ = [
    "RunFacts",
    "compare_report",
    "group_report",
    "read_run",
    "run_report",
    "serve",
    "to_page",
    "to_text",
    "write_file",
    "write_report",
]
