"""Run `wscnn` as a module: ``python -m wscnn``."""

from wscnn.cli import main

main(prog_name="wscnn")
