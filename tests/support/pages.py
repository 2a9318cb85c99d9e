"""What a page of the documentation has its reader write, installed as a package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.blocks import blocks_of
from tests.support.packages import install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def install_page(site: Path, page: Path) -> Mapping[str, str]:
    """Installs the package of a page.

    Args:
        site: a folder of the module path.
        page: of the documentation.

    Returns:
        Its modules, sources by name.
    """
    files = {block.marks[0]: block.text for block in blocks_of(page) if block.marks}
    project = tomllib.loads(files["pyproject.toml"])
    modules = {name: files[f"{name}.py"] for name in project["tool"]["setuptools"]["py-modules"]}
    about = project["project"]
    install(site, about["name"], about["entry-points"], modules, about["version"])
    return modules
