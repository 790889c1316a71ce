# All that can be known before the first job: config, tables and file names agree. Not a rule, because Snakemake does
# not look for changed settings below a job that runs again: results would stay as they were under the former ones.
LAYOUT, CONTROLS = f"{RESULTS}/layout.parquet", f"{RESULTS}/controls.parquet"
WARNINGS = f"{RESULTS}/warnings/check.parquet"


onstart:
    check_once()


def check_once():
    """Check the screen unless it was checked as it is now, and write its layout and controls for the jobs."""
    # Every job of a cluster reads this file, too, and needs none of these.
    from wscnn.atomic import atomic_path
    from wscnn.check import check_config, write_screen
    from wscnn.provenance import keep_run

    tables = [Path(config[name]).read_bytes() for name in ("plates", "layout")]
    parts = [json.dumps(config, sort_keys=True).encode(), *tables]
    digest = sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
    seen = Path(f"{RESULTS}/checked.txt")
    made = [Path(LAYOUT), Path(CONTROLS), Path(WARNINGS)]
    if (
        all(path.is_file() for path in [*made, seen])
        and seen.read_text().strip() == digest
    ):
        return
    screen = valid(check_config, config)
    for warning in screen.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    keep_run(config, Path(RESULTS))
    write_screen(screen, *made)
    with atomic_path(seen) as partial:
        partial.write_text(digest + "\n")
