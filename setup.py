"""Maps the five folders into the ``gaugeblock`` namespace; everything else is in pyproject.toml.

``package-dir`` is static there, but the list of subpackages is found here, so that a new folder needs no entry.
"""

from setuptools import find_namespace_packages, setup

FOLDERS = ("kernels", "reference", "fixtures", "conformance", "golden")

setup(
    packages=[
        f"gaugeblock.{name}"
        for name in find_namespace_packages(include=[p for f in FOLDERS for p in (f, f"{f}.*")])
        if not name.endswith("__pycache__")
    ],
    package_dir={f"gaugeblock.{folder}": folder for folder in FOLDERS},
)
